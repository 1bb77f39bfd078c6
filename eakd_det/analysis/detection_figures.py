"""AP by entropy as a figure; that of the objects' ROIs is as that of images."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from .figures import TEACHER_COLOUR, label_ends, style, tidy


def draw_ap_segments(
    teacher: list[Mapping[str, float]],
    students: Mapping[str, list[Mapping[str, float]]],
    *,
    temperature: float,
) -> Figure:
    """AP over parts of the objects by teacher entropy (left), and the teacher's lead (right).

    Args:
        teacher: of each part, the lowest entropy first, "AP" in percent.
        students: name -> the same.
        temperature: of the entropies.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes, gap_axes = figure.subplots(1, 2)
    x = range(1, len(teacher) + 1)
    known = [part["AP"] for part in teacher]
    axes.plot(x, known, color=TEACHER_COLOUR, linestyle="--")
    gap_axes.axhline(0, color=TEACHER_COLOUR, linewidth=1)
    ends, gap_ends = [(known[-1], "teacher", TEACHER_COLOUR)], []
    for index, (name, parts) in enumerate(students.items()):
        ap = [part["AP"] for part in parts]
        gap = [a - b for a, b in zip(known, ap, strict=True)]
        axes.plot(x, ap, **style(index))
        gap_axes.plot(x, gap, **style(index))
        ends.append((ap[-1], name, style(index)["color"]))
        gap_ends.append((gap[-1], name, style(index)["color"]))
    axes.set_ylabel("AP (%)")
    axes.set_ylim(bottom=0)
    gap_axes.set_ylabel("teacher minus student (points)")
    for panel in (axes, gap_axes):
        tidy(panel)
        panel.set_xticks(x)
        panel.set_xlabel(f"part of {len(known)}: 1 the surest objects, {len(known)} the least sure")
    figure.suptitle(
        "COCO AP over equal parts of the objects, by the teacher's entropy of their ROIs\n"
        f"(at temperature {temperature:g}; objects of other parts are ignored)"
    )
    figure.canvas.draw()  # sets the limits and sizes by which labels are placed
    label_ends(axes, ends)
    label_ends(gap_axes, gap_ends)
    return figure
