"""Learning curves of runs."""

import math
from collections.abc import Iterable, Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from eakd_det.analysis.figures import label_ends, stroke, style, thinned, tidy
from eakd_det.analysis.metrics import Series
from eakd_det.sweep.kinds import RunKind
from eakd_det.sweep.run_files import RunFiles

from .charts import Chart, make_chart
from .differences import teachers_of
from .runs import by_group

MOST_POINTS = 300  # of a line
LOSSES = {"total_loss": "total loss", "eval_loss": "loss of the held-out examples"}
LOG_RATIO = 30  # ratio of the largest to the smallest value above which an axis is logarithmic


def progress_charts(runs: list[RunFiles], kind: RunKind) -> list[Chart]:
    """Draw the main metric and the losses of all runs over the iterations."""
    main, groups = kind.columns[0], by_group(runs)
    curves = {name: [kind.curve(files) for files in of] for name, of in groups.items()}
    curves = {name: of for name, of in curves.items() if all(len(curve) > 1 for curve in of)}
    teachers = {kind.teacher(files) for files in runs} - {None}
    charts = []
    if curves:
        has_own_line = teachers_of(runs, kind) & curves.keys()
        teacher = teachers.pop() if len(teachers) == 1 and not has_own_line else None
        charts.append(line_chart(f"{main} on the test set (%)", curves, level=teacher))
    for metric, title in LOSSES.items():
        losses = {name: [f.metrics.get(metric, []) for f in of] for name, of in groups.items()}
        losses = {name: of for name, of in losses.items() if all(of)}
        charts += [line_chart(title, losses)] if losses else []
    return charts


def loss_charts(runs: list[RunFiles]) -> list[Chart]:
    """Draw the parts of each run's loss, for runs with several."""
    charts = []
    for name, of in by_group(runs).items():
        parts = {
            part.removeprefix("loss_"): [files.metrics.get(part, []) for files in of]
            for part in of[0].metrics
            if part.startswith("loss_")
        }
        if len(parts) > 1:
            charts.append(line_chart(f"{name}: parts of the loss", parts))
    return charts


def line_chart(title: str, lines: Mapping[str, list[Series]], level: float | None = None) -> Chart:
    """Draw lines over the iterations, each labelled at its end.

    Args:
        title: name of the quantity, with its unit.
        lines: name -> its points in each run of that name; of several runs the mean is drawn, with
            the range from the lowest to the highest.
        level: value of the teacher, drawn as a dashed line.
    """
    lines = {name: merge(map(finite, of)) for name, of in lines.items()}
    lines = {name: points for name, points in lines.items() if points}
    ends = [f"{name} ends at {points[-1][1]:.4g}" for name, points in lines.items()]
    if level is not None:
        ends.append(f"the teacher has {level:.4g}")
    text = f"Lines of {title} over the iterations: {', '.join(ends)}."
    return make_chart(title, text, lambda axes: _draw_lines(axes, lines, level))


def merge(runs: Iterable[Series]) -> list[tuple[int, float, float, float]]:
    """Return (iteration, mean, lowest, highest) for the iterations that all runs have."""
    values = [dict(points) for points in runs]
    common = [i for i in values[0] if all(i in of for of in values)]
    found = [(i, [of[i] for of in values]) for i in common]
    return [(i, sum(of) / len(of), min(of), max(of)) for i, of in found]


def _draw_lines(
    axes: Axes,
    lines: Mapping[str, list[tuple[int, float, float, float]]],
    level: float | None,
) -> None:
    ink = matplotlib.rcParams["text.color"]
    ends = []
    for index, (name, points) in enumerate(lines.items()):
        x, y, low, high = (
            thinned(np.array(values), MOST_POINTS) for values in zip(*points, strict=True)
        )
        colour, marker = style(index)["color"], style(index)["marker"]
        marker = marker if len(x) < 20 else ""
        axes.plot(x, y, color=colour, marker=marker, markersize=4, **stroke(index))
        if (low < high).any():
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        ends.append((float(y[-1]), name, colour))
    if level is not None:
        axes.axhline(level, color=ink, linestyle="--", linewidth=1)
        ends.append((level, "teacher", ink))
    values = [value for points in lines.values() for _, value, *_ in points]
    if values and min(values) > 0 and max(values) / min(values) > LOG_RATIO:
        axes.set_yscale("log")
    finish_iterations(axes)
    label_ends(axes, ends)


def finish_iterations(axes: Axes) -> None:
    """Format the axis of iterations and set the layout that `label_ends` needs."""
    tidy(axes)
    axes.set_xlabel("iteration")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}".replace(",", " ")))
    axes.figure.draw_without_rendering()


def finite(points: Series) -> Series:
    """Remove points that are not finite, such as the AP of a class without boxes."""
    return [point for point in points if math.isfinite(point[1])]
