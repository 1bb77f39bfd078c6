"""Helpers of the analyses' figures: colours, panels, labels and saving."""

import os
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from scipy.optimize import isotonic_regression

from eakd_det.utils.files import write_atomically, write_json

# Okabe and Ito's colours, which colour-blind readers can distinguish; black is the teacher's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
TEACHER_COLOUR = "#000000"
MOST_PANELS = 4  # in a row
LONGEST_NAME = 16  # letters of a name at the end of a line
DPI = 130


def save(figure: Figure, folder: str, name: str, numbers: Mapping[str, Any]) -> list[str]:
    """Write NAME.png, NAME.svg and the figure's numbers, NAME.json; the files are deterministic.

    Returns:
        The paths.
    """
    os.makedirs(folder, exist_ok=True)
    paths = [os.path.join(folder, f"{name}.{ending}") for ending in ("png", "svg", "json")]
    figure.draw_without_rendering()  # the layout needs two passes, or labels are cut off
    with write_atomically(paths[0], "wb") as f:
        figure.savefig(f, format="png", dpi=DPI)
    with write_atomically(paths[1], "wb") as f, matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(f, format="svg", metadata={"Date": None})
    write_json(paths[2], numbers, indent=1)
    return paths


def style(index: int) -> dict[str, str]:
    """Return colour and marker of a run, by its index among those that are compared."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def stroke(index: int) -> dict[str, Any]:
    """Return width and dashes of a run's line, which leave an equal earlier line visible."""
    if index == 0:
        return {"linewidth": 2.4}
    dash = 7 - 1.5 * (index % 4)  # drawn points of each 8
    return {"linewidth": 1.6, "linestyle": (0, (dash, 8 - dash))}


def panel_rows(groups: Mapping[str, str | None]) -> list[list[str]]:
    """Arrange panels in rows of up to four; a run with several checkpoints gets its own rows.

    Args:
        groups: label of a panel -> its run; None is the teacher's, which ends the first row.

    Returns:
        Labels of the panels of each row.
    """
    by_run: dict[str, list[str]] = {}
    for label, run in groups.items():
        if run is not None:
            by_run.setdefault(run, []).append(label)
    teacher = [label for label, run in groups.items() if run is None]
    rows = list(by_run.values())
    if max(map(len, rows)) > 1:
        rows = [rows[0] + teacher, *rows[1:]]
    else:
        rows = [[label for row in rows for label in row] + teacher]
    return [row[i : i + MOST_PANELS] for row in rows for i in range(0, len(row), MOST_PANELS)]


def panel_figure(
    rows: list[list[str]], size: tuple[float, float], **options: Any
) -> tuple[Figure, dict[str, Axes]]:
    """Make a figure with a panel for each label.

    Args:
        rows: labels by row, see `panel_rows`.
        size: width and height of a panel, inches.
        options: options of `Figure.add_subplot`.
    """
    width, height = max(map(len, rows)), len(rows)
    figure = Figure(figsize=(size[0] * width + 0.8, size[1] * height + 0.5), layout="constrained")
    panels = {
        label: figure.add_subplot(height, width, i * width + j + 1, **options)
        for i, row in enumerate(rows)
        for j, label in enumerate(row)
    }
    return figure, panels


def log_bar(figure: Figure, panels: Mapping[str, Axes], norm: LogNorm, colours: Any) -> Colorbar:
    """Add a colour bar with a logarithmic scale and plain numbers beside all panels."""
    ticks = LogLocator(subs=(1, 2, 5)).tick_values(norm.vmin, norm.vmax)
    bar = figure.colorbar(
        ScalarMappable(norm, colours),
        ax=list(panels.values()),
        ticks=[tick for tick in ticks if norm.vmin <= tick <= norm.vmax],
        shrink=0.8,
    )
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    return bar


def tidy(axes: Axes) -> None:
    """Draw a faint horizontal grid and hide the top and right spines."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)


def start_at_zero(axes: Axes) -> None:
    """Set the limits from 0 to a little above the highest value, also if all values are equal."""
    axes.set_ylim(0, axes.dataLim.y1 * 1.05 or 1)


def draw_intervals(
    axes: Axes, estimates: Sequence[tuple[float, float, float]], shift: float, **look: str
) -> None:
    """Draw a line over 1, 2, ... with the interval of each value.

    Args:
        estimates: value, and the ends of its interval.
        shift: horizontal shift from other lines over the same positions.
        look: line style, as `style` returns it.
    """
    y, low, high = zip(*estimates, strict=True)
    bars = [
        [a - b for a, b in zip(y, low, strict=True)],
        [b - a for a, b in zip(y, high, strict=True)],
    ]
    x = [i + 1 + shift for i in range(len(y))]
    axes.errorbar(x, y, bars, markersize=5, elinewidth=1, linewidth=1.5, **look)


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Label lines at the right edge without overlaps, or below the axes if a name is long.

    Args:
        axes: axes whose limits are set.
        ends: last y, name and colour of each line.
    """
    if any(len(name) > LONGEST_NAME for _, name, _ in ends):
        lines = [Line2D([], [], color=colour, linewidth=2) for _, _, colour in ends]
        names = ["\n".join(wrap(name, 40)) for _, name, _ in ends]
        place = {"loc": "upper left", "bbox_to_anchor": (0, -0.2), "frameon": False}
        axes.legend(lines, names, fontsize="small", **place)
        return
    letters = FontProperties(size="small").get_size_in_points()
    scale = axes.get_yaxis().get_transform()
    low, high, *heights = scale.transform([*axes.get_ylim(), *(y for y, _, _ in ends)])
    order = sorted(range(len(ends)), key=lambda i: ends[i][0])
    height = axes.get_window_extent().height / axes.figure.dpi * 72  # points
    places = space_out([(heights[i] - low) / (high - low) for i in order], 1.3 * letters / height)
    for i, place in zip(order, places, strict=True):
        _, name, colour = ends[i]
        axes.annotate(
            name,
            (1.0, place),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=letters,
        )


def space_out(places: Sequence[float], distance: float) -> list[float]:
    """Move ascending positions by least squares to be at least `distance` apart."""
    steps = distance * np.arange(len(places))
    return (isotonic_regression(np.array(places) - steps).x + steps).tolist()


def thinned(values: np.ndarray, most: int) -> np.ndarray:
    """Reduce values to at most `most` means of consecutive ones."""
    return np.array([part.mean() for part in np.array_split(values, min(most, len(values)))])
