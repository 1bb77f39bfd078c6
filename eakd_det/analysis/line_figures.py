"""Line figures of entropy segments, training dynamics, and the area of low loss."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .dynamics import Dynamics
from .figures import (
    TEACHER_COLOUR,
    draw_intervals,
    label_ends,
    start_at_zero,
    stroke,
    style,
    thinned,
    tidy,
)
from .segments import NUM_SEGMENTS, Segment

MOST_POINTS = 150  # of a line over the training
GAPS_IN_LINE = 3  # gaps in each line of the title
DYNAMICS_TITLES = {
    "teacher_entropy": "teacher entropy $H_T$ (nats)",
    "student_entropy": "student entropy $H_S$ (nats)",
    "w_ea": "weight $w_{EA}$: mean, 10th to 90th percentile",
}


def draw_segments(
    by_teacher: Mapping[str, list[Segment]],
    by_student: Mapping[str, list[Segment]],
    *,
    temperature: float,
    what: str = "images",
) -> Figure:
    """Draw accuracies (top) and gaps (bottom) by the entropy of the teacher and of each student.

    Args:
        by_teacher: student -> segments by teacher entropy.
        by_student: student -> segments by its own entropy.
        temperature: softmax temperature of the entropies.
        what: name of the samples, in the plural.
    """
    figure = Figure(figsize=(11, 7.2), layout="constrained")
    (left, right), (left_gap, right_gap) = figure.subplots(2, 2, sharex=True, sharey="row")
    sides = [(left, left_gap, by_teacher), (right, right_gap, by_student)]
    for axes, gap_axes, segments in sides:
        for index, parts in enumerate(segments.values()):
            _errors(axes, [s.student for s in parts], index, len(segments))
            _errors(gap_axes, [s.gap for s in parts], index, len(segments))
            _teacher_line(axes, parts, None if axes is left else index)
        gap_axes.axhline(0, color=TEACHER_COLOUR, linewidth=1)
        gap_axes.set_xticks(range(1, NUM_SEGMENTS + 1))
        gap_axes.set_xlabel(f"tenth of the {what}, from low (1) to high entropy ({NUM_SEGMENTS})")
        tidy(axes)
        tidy(gap_axes)
    left.set_title(f"{what} by the teacher's entropy (dashed: teacher)")
    right.set_title(f"{what} by each student's entropy (dashed: teacher)")
    left.set_ylabel("accuracy (%)")
    left_gap.set_ylabel("teacher minus student (points)")
    gaps = [
        "{} {:+.1f} [{:+.1f}, {:+.1f}]".format(name, *parts[-1].gap)
        for name, parts in by_teacher.items()
    ]
    lines = [", ".join(gaps[i : i + GAPS_IN_LINE]) for i in range(0, len(gaps), GAPS_IN_LINE)]
    figure.suptitle(
        "Teacher minus student in the tenth of the highest teacher entropy, points:\n"
        + ",\n".join(lines)
        + f"\n(entropies at temperature {temperature:g}; "
        f"bars and brackets: 95 % intervals over the {what})",
        fontsize=11,
    )
    figure.draw_without_rendering()  # sets the limits and sizes by which labels are placed
    for axes, gap_axes, segments in sides:
        label_ends(axes, _ends({name: parts[-1].student[0] for name, parts in segments.items()}))
        label_ends(gap_axes, _ends({name: parts[-1].gap[0] for name, parts in segments.items()}))
    return figure


def _ends(last: Mapping[str, float]) -> list[tuple[float, str, str]]:
    """Return the last values of runs, in their order, with names and colours for `label_ends`."""
    return [(y, name, style(i)["color"]) for i, (name, y) in enumerate(last.items())]


def _errors(axes: Axes, estimates: list[tuple[float, float, float]], index: int, of: int) -> None:
    """Draw a line with intervals, shifted horizontally from those of other runs."""
    draw_intervals(axes, estimates, 0.12 * (index - (of - 1) / 2), **style(index))


def _teacher_line(axes: Axes, segments: list[Segment], index: int | None) -> None:
    """Draw the teacher's accuracy, in a student's colour if the segments are by its entropy."""
    colour = TEACHER_COLOUR if index is None else style(index)["color"]
    y = [segment.teacher[0] for segment in segments]
    axes.plot(range(1, len(y) + 1), y, color=colour, linestyle="--", linewidth=1.2)


def draw_dynamics(runs: Mapping[str, Dynamics]) -> Figure:
    """Draw entropies and weights over the iterations, with a row for each part of the samples.

    Args:
        runs: name -> logged entropies and weights.
    """
    parts = list(dict.fromkeys(part for dynamics in runs.values() for part in dynamics))
    figure = Figure(figsize=(13, 3.4 * len(parts) + 0.6), layout="constrained")
    panels = figure.subplots(len(parts), 3, squeeze=False, sharex=True)
    ends: dict[Axes, list[tuple[float, str, str]]] = {}
    for row, part in zip(panels, parts, strict=True):
        for axes, (column, title) in zip(row, DYNAMICS_TITLES.items(), strict=True):
            tidy(axes)
            axes.set_title(title if len(parts) == 1 else f"{part}: {title}", fontsize=10)
            for index, (name, dynamics) in enumerate(runs.items()):
                if part in dynamics:
                    last = dynamics_line(axes, dynamics[part], column, index)
                    ends.setdefault(axes, []).append((last, name, style(index)["color"]))
            start_at_zero(axes)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axes in panels[-1]:
        axes.set_xlabel("iteration")
    figure.suptitle("Entropies and EA weights of the training batches, as the runs logged them")
    figure.draw_without_rendering()
    for axes, lines in ends.items():
        label_ends(axes, lines)
    return figure


def dynamics_line(axes: Axes, logged: Mapping, column: str, index: int) -> float:
    """Draw a logged column, leaving an equal line below it visible; return its last value."""
    x, y = thinned(logged["iteration"], MOST_POINTS), thinned(logged[column], MOST_POINTS)
    colour = style(index)["color"]
    axes.plot(x, y, color=colour, **stroke(index))
    if column == "w_ea":
        low, high = (thinned(logged[f"w_ea_{end}"], MOST_POINTS) for end in ("p10", "p90"))
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    return float(y[-1])


def draw_areas(
    areas: Mapping[str, Mapping[int, float]], teacher: float | None, *, level: float
) -> Figure:
    """Draw Area@level over the training.

    Args:
        areas: run -> iteration -> area.
        teacher: area of the teacher, or None.
        level: the loss level.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for index, by_iteration in enumerate(areas.values()):
        x, y = zip(*sorted(by_iteration.items()), strict=True)
        axes.plot(x, y, **style(index))
    ends = _ends({name: of[max(of)] for name, of in areas.items()})
    if teacher is not None:
        axes.axhline(teacher, color=TEACHER_COLOUR, linestyle="--")
        ends.append((teacher, "teacher", TEACHER_COLOUR))
    axes.set_xlabel("iteration")
    axes.set_ylabel(f"share of the plane with loss < {level:g}")
    start_at_zero(axes)
    axes.set_title(f"Area@{level:g} of the loss landscape over the training")
    tidy(axes)
    figure.draw_without_rendering()
    label_ends(axes, ends)
    return figure
