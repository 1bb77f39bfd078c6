"""Figure of AP by entropy. Figures of ROIs are those of images (`line_figures`)."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .figures import TEACHER_COLOUR, draw_intervals, label_ends, style, tidy

Parts = list[dict[str, Any]]  # "AP" and its "interval" of each part, lowest entropy first


def draw_ap_segments(
    aps: Mapping[str, Parts], gaps: Mapping[str, Parts], *, temperature: float
) -> Figure:
    """Draw AP over parts of the objects by teacher entropy (left), and the teacher's lead (right).

    Args:
        aps: detector, "teacher" among them -> AP in percent.
        gaps: student -> the teacher's AP minus its own, in points.
        temperature: softmax temperature of the entropies.
    """
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    axes, gap_axes = figure.subplots(1, 2)
    number = len(aps["teacher"])
    gap_axes.axhline(0, color=TEACHER_COLOUR, linewidth=1)
    ends = [_draw(axes, aps["teacher"], "teacher", 0.0, color=TEACHER_COLOUR, linestyle="--")]
    gap_ends = []
    for index, name in enumerate(gaps):
        shift = 0.08 * (index + 1)
        ends.append(_draw(axes, aps[name], name, shift, **style(index)))
        gap_ends.append(_draw(gap_axes, gaps[name], name, shift, **style(index)))
    axes.set_ylabel("AP (%)")
    axes.set_ylim(bottom=0)
    gap_axes.set_ylabel("teacher minus student (points)")
    for panel in (axes, gap_axes):
        tidy(panel)
        panel.set_xticks(range(1, number + 1))
        panel.set_xlabel(f"part of the objects, from low (1) to high entropy ({number})")
    figure.suptitle(
        "COCO AP over equal parts of the objects, by the teacher's entropy of their ROIs\n"
        f"(at temperature {temperature:g}; objects of other parts are ignored)\n"
        "bars: 95 % bootstrap intervals over the images; other training seeds would add to them",
        fontsize=11,
    )
    figure.draw_without_rendering()  # sets the limits and sizes by which labels are placed
    label_ends(axes, ends)
    label_ends(gap_axes, gap_ends)
    return figure


def _draw(axes: Axes, parts: Parts, name: str, shift: float, **look: str) -> tuple[float, str, str]:
    """Draw a line with intervals, shifted from others; return its end for `label_ends`."""
    draw_intervals(axes, [(part["AP"], *part["interval"]) for part in parts], shift, **look)
    return parts[-1]["AP"], name, look["color"]
