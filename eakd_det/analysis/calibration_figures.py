"""Reliability diagrams."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from .figures import panel_figure, style, tidy
from .reliability import NUM_BINS, Reliability
from .segments import proportion


def draw_reliability(
    panels: Mapping[str, Mapping[str, Reliability]],
    rows: list[list[str]],
    *,
    title: str,
    accuracy: str,
    what: str,
) -> Figure:
    """Draw accuracy over confidence (above), and the number of samples in each bin (below).

    Args:
        panels: network -> text of the legend -> bins.
        rows: rows of panels, see `eakd_det.analysis.figures.panel_rows`.
        accuracy: name of the share of correct samples.
        what: name of the samples, in the plural.
    """
    figure, drawn = panel_figure(rows, (4.2, 5.8))
    for name, axes in drawn.items():
        counts = axes.inset_axes((0, -0.42, 1, 0.32), sharex=axes)
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1)
        for index, (label, bins) in enumerate(panels[name].items()):
            _draw_bins(axes, bins, index, label)
            _draw_counts(counts, bins, index)
        axes.set_title(name, pad=8 + 15 * len(panels[name]))  # above the legend
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.tick_params(labelbottom=False)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.legend(loc="lower left", bbox_to_anchor=(-0.04, 1), fontsize="small", frameon=False)
        most = max((number for bins in panels[name].values() for number in bins.number), default=1)
        counts.set(xlabel="confidence", yscale="log", ylim=(0.7, 1.5 * most))
        counts.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        counts.xaxis.set_major_formatter(PercentFormatter(1))
        tidy(axes)
        tidy(counts)
        if name in [row[0] for row in rows]:
            axes.set_ylabel(accuracy)
            counts.set_ylabel(what)
    figure.suptitle(title, fontsize=11)
    return figure


def _draw_bins(axes: Axes, bins: Reliability, index: int, label: str) -> None:
    """Draw the share of correct samples over the mean confidence, with Wilson's intervals."""
    if not bins.number:
        axes.plot([], [], label=label, linestyle="none", **style(index))
        return
    pairs = zip(bins.correct, bins.number, strict=True)
    shares, low, high = zip(*(proportion(*pair) for pair in pairs), strict=True)
    ends = [
        [share - end for share, end in zip(shares, low, strict=True)],
        [end - share for share, end in zip(shares, high, strict=True)],
    ]
    look = {"markersize": 4, "elinewidth": 1, "linestyle": "none", **style(index)}
    axes.errorbar(bins.confidence, shares, ends, label=label, **look)


def _draw_counts(axes: Axes, bins: Reliability, index: int) -> None:
    edges = [end for low in bins.low for end in (low, low + 1 / NUM_BINS)]
    heights = [number for number in bins.number for _ in range(2)]
    axes.plot(edges, heights, color=style(index)["color"], linewidth=1.5)
