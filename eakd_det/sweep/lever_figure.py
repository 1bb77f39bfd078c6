"""Figure of levers: the main metric, and what EA adds to it, over the values of a key."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eakd_det.analysis.figures import (
    COLOURS,
    LONGEST_NAME,
    MARKERS,
    TEACHER_COLOUR,
    label_ends,
    save,
    tidy,
)

from .kinds import RunKind
from .levers import Entry, Panel, lever_panels
from .names import ALONE, base_of
from .own_values import with_own_values
from .vary import levers_of, number

LOG_FROM = 8  # ratio of largest and smallest value above which the axis is logarithmic
MOST_LETTERS = 60  # of horizontal tick labels over the width of the axis
ALONE_COLOUR = "0.4"
PALETTE = (*COLOURS, "#8C564B")  # brown: figures of seven methods are common


def write_levers(
    kind: RunKind,
    rows: Sequence[Entry],
    summary: Sequence[Entry],
    differences: Sequence[Entry],
    folder: str,
) -> None:
    """Write lever.png, lever.svg and lever.json, the numbers of the figure, if a key is varied.

    Args:
        rows: runs of the kind, of `collect`.
        summary, differences: of `summarize` and `compare`.
    """
    levers = levers_of(rows)
    if panels := lever_panels(*with_own_values(kind, rows, summary, differences, levers)):
        figure = draw_levers(panels, kind.metrics[kind.main])
        save(figure, folder, "lever", {"panels": [asdict(panel) for panel in panels]})


def draw_levers(panels: Sequence[Panel], metric: str) -> Figure:
    """Draw panels side by side: means over the seeds, and below EA-X minus X, paired by seed.

    Args:
        panels: of `lever_panels`.
        metric: title of the main metric, which is in percent.
    """
    rows = 2 if any(panel.differences for panel in panels) else 1
    figure = Figure(figsize=(7 * len(panels), 2.4 + 2.6 * rows), layout="constrained")
    grid = figure.subplots(
        *(rows, len(panels)), squeeze=False, sharex="col", height_ratios=[1.5, 1][:rows]
    )
    labels: dict[Axes, list[tuple[float, str, str]]] = {}
    for panel, (top, *below) in zip(panels, grid.T, strict=True):
        looks = _looks([*panel.lines, *panel.flat])
        places = _places(panel.values)
        labels[top] = _draw_lines(top, panel.lines, places, looks) + _draw_flat(
            top, panel.flat, looks
        )
        top.set_title(f"{panel.title}, {_seeds(panel)}", fontsize=11)
        top.set_ylabel(f"{metric} (%)")
        for axes in below:
            labels[axes] = _draw_lines(axes, panel.differences, places, looks)
            axes.axhline(0, color=TEACHER_COLOUR, linewidth=1)
            axes.set_ylabel("EA-X minus X (points)")
        _set_scale([top, *below][-1], places)
        [top, *below][-1].set_xlabel(panel.key)
    for axes in grid.flat:
        tidy(axes)
    figure.suptitle("Means over the seeds, and differences paired by seed; bars: 95 % intervals")
    _label(figure, labels)
    return figure


def _seeds(panel: Panel) -> str:
    """Return "5 seeds", or "3 to 5 seeds"."""
    entries = [entry for line in panel.lines.values() for entry in line.values()]
    least, *_, most = sorted([entry["runs"] for entry in [*entries, *panel.flat.values()]] * 2)
    return f"{least} to {most} seeds" if most > least else f"{most} seed{'s' * (most > 1)}"


def _looks(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return colour and line of each method: X and its EA-X have one colour."""
    bases = dict.fromkeys(base_of(method) for method in methods if not method.startswith(ALONE))
    looks = {}
    for method in methods:
        if method.startswith(ALONE):
            looks[method] = {"color": ALONE_COLOUR, "marker": "x", "linestyle": ":"}
            continue
        i = [*bases].index(base_of(method))
        looks[method] = {"color": PALETTE[i % len(PALETTE)], "marker": MARKERS[i % len(MARKERS)]}
        if not method.startswith("EA-"):
            looks[method] |= {"linestyle": "--", "markerfacecolor": "white"}
        elif base_of(method) != method.removeprefix("EA-"):
            looks[method] |= {"linestyle": ":"}
    return looks


def _places(values: Sequence[str]) -> dict[str, float]:
    """Return places on the axis: of numbers themselves or their logarithms, of words 0, 1, ..."""
    found = [number(value) for value in values]
    places = [x for x in found if x is not None]
    if len(places) < len(found):
        places = [float(i) for i in range(len(values))]
    elif places[0] > 0 and places[-1] > LOG_FROM * places[0]:
        places = [math.log10(x) for x in places]
    return dict(zip(values, places, strict=True))


def _set_scale(axes: Axes, places: Mapping[str, float]) -> None:
    """Label the axis at the values."""
    low, *_, high = [*places.values()] * 2
    letter = (high - low) / MOST_LETTERS
    touch = any(
        b - a < letter * (len(left + right) / 2 + 2)
        for (left, a), (right, b) in pairwise(places.items())
    )
    turn = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"} if touch else {}
    axes.set_xticks([*places.values()], [*places], **turn)
    margin = 0.06 * (high - low) or 1.0
    axes.set_xlim(low - margin, high + margin)


def _draw_lines(
    axes: Axes,
    lines: Mapping[str, Mapping[str, Entry]],
    places: Mapping[str, float],
    looks: Mapping[str, dict[str, Any]],
) -> list[tuple[float, str, str]]:
    """Draw lines that are shifted from one another, and return their ends for `label_ends`."""
    x = np.array([*places.values()])
    gap, span = (np.diff(x).min(), x[-1] - x[0]) if len(x) > 1 else (1.0, 1.0)
    step = min(0.06 * gap, 0.5 * gap / max(len(lines), 1), 0.012 * span)
    ends = []
    for i, (method, line) in enumerate(lines.items()):
        shift = step * (i - (len(lines) - 1) / 2)
        entries = [line[value] for value in places if value in line]
        x = [places[value] + shift for value in places if value in line]
        y = [entry["mean"] for entry in entries]
        bars = [np.nan if entry["interval"] is None else entry["interval"] for entry in entries]
        look = {"markersize": 5, "elinewidth": 1, "linewidth": 1.5, **looks[method]}
        if not all(any(map(str.isdecimal, value)) for value in places):
            look["linestyle"] = "none"  # words have no order
        axes.errorbar(x, y, bars, label=method, **look)
        ends.append((y[-1], method, looks[method]["color"]))
    return ends


def _draw_flat(
    axes: Axes, flat: Mapping[str, Entry], looks: Mapping[str, dict[str, Any]]
) -> list[tuple[float, str, str]]:
    """Draw level lines with a band of their interval, and return their ends."""
    for method, entry in flat.items():
        colour, style = looks[method]["color"], looks[method]["linestyle"]
        axes.axhline(entry["mean"], color=colour, linestyle=style, label=method)
        if entry["interval"] is not None:
            ends = [entry["mean"] + sign * entry["interval"] for sign in (-1, 1)]
            axes.axhspan(*ends, color=colour, alpha=0.08, linewidth=0)
    return [(entry["mean"], method, looks[method]["color"]) for method, entry in flat.items()]


def _label(figure: Figure, labels: Mapping[Axes, list[tuple[float, str, str]]]) -> None:
    """Label the lines at their ends, or in a legend below if a name is long."""
    if any(len(name) > LONGEST_NAME for ends in labels.values() for _, name, _ in ends):
        found = {}
        for axes in labels:
            handles, names = axes.get_legend_handles_labels()
            found = {**dict(zip(names, handles, strict=True)), **found}
        figure.legend(
            [*found.values()], [*found], loc="outside lower center", ncols=3, frameon=False
        )
        return
    figure.draw_without_rendering()  # sets the limits and sizes by which labels are placed
    for axes, ends in labels.items():
        label_ends(axes, ends)
