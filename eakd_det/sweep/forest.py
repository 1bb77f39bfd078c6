"""Forest plot of a sweep's paired differences."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eakd_det.analysis.figures import COLOURS, save

from .formats import as_p_value
from .kinds import RunKind

MINUS = "\N{MINUS SIGN}"  # as wide as a plus
LEVEL = 0.05  # of the corrected p value, below which a marker is filled
WIDTH, ROW, MARGIN = 9.0, 0.24, 1.0  # inches
TALL = 25  # rows from which the axis has its numbers above, too

Row = tuple[str, dict[str, Any] | None]  # label, difference; None is a heading's


def draw_differences(kind: RunKind, differences: list[dict[str, Any]], folder: str) -> list[str]:
    """Draw differences.png and .svg, and write their numbers, differences.json.

    Args:
        differences: as `eakd_det.sweep.comparison.compare` returns them; a row each, in groups of
            one dataset and models.

    Returns:
        The paths.
    """
    rows = _rows(differences)
    figure = Figure(figsize=(WIDTH, ROW * len(rows) + MARGIN), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="0.4", linewidth=1)
    for y, (_, entry) in enumerate(rows):
        if entry is not None:
            _draw(axes, y, entry)
    title = f"difference in {kind.metrics[kind.main]} (points): mean and 95 % interval"
    axes.set_xlabel(title, fontsize=9)
    _label(axes, rows)
    _add_legend(figure, differences)
    return save(figure, folder, "differences", {"differences": differences})


def _rows(differences: list[dict[str, Any]]) -> list[Row]:
    """Return the rows from top to bottom, with a heading for each dataset and models."""
    groups: dict[str, list[Row]] = {}
    for entry in differences:
        group = groups.setdefault(f"{entry['dataset']}, {entry['models']}", [])
        group.append((f"{entry['method']} minus {entry['minus']}", entry))
    return [row for title, group in groups.items() for row in [(title, None), *group]]


def _is_filled(entry: dict[str, Any]) -> bool:
    return entry["p_holm"] is not None and entry["p_holm"] < LEVEL


def _draw(axes: Axes, y: int, entry: dict[str, Any]) -> None:
    fill = COLOURS[0] if _is_filled(entry) else "white"
    axes.errorbar(
        *(entry["mean"], y),
        xerr=entry["interval"],
        **{"marker": "o", "markersize": 5, "elinewidth": 1.4, "color": COLOURS[0]},
        markerfacecolor=fill,
    )


def _label(axes: Axes, rows: list[Row]) -> None:
    """Label the rows on the left, with their figures on the right."""
    places = range(len(rows))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(places, [label for label, _ in rows], fontsize=8)
    for label, (_, entry) in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if entry is None else "normal")
    right = axes.secondary_yaxis("right")
    right.set_yticks(places, [_figures(entry) for _, entry in rows], fontsize=8)
    for each in (axes, right):
        each.tick_params(axis="y", length=0)
        each.spines[:].set_visible(False)
    axes.spines["bottom"].set_visible(True)
    axes.tick_params(axis="x", labelsize=8, labeltop=len(rows) > TALL)
    axes.margins(x=0.08)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)


def _figures(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return ""
    interval = "" if entry["interval"] is None else f" ± {entry['interval']:.2f}"
    p = "" if entry["p_holm"] is None else f", p {as_p_value(entry['p_holm'])}"
    return f"{entry['mean']:+.2f}{interval}{p}, n {entry['runs']}".replace("-", MINUS)


def _add_legend(figure: Figure, differences: list[dict[str, Any]]) -> None:
    tested = sum(entry["p"] is not None for entry in differences)
    if not tested:
        return
    fills = {
        f"p < {LEVEL}, corrected for {tested} comparison{'s' * (tested != 1)} (Holm)": COLOURS[0],
        "other": "white",
    }
    look = {"marker": "o", "markersize": 5, "color": COLOURS[0], "linewidth": 1.4}
    lines = [Line2D([], [], markerfacecolor=fill, **look) for fill in fills.values()]
    place = {"loc": "outside lower center", "ncols": 2}
    figure.legend(lines, [*fills], fontsize=8, frameon=False, **place)
