"""The plane of teacher and student entropy, with the lines of equal w_EA."""

import math
from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from eakd_det.losses.entropy import combine_entropies

from .figures import panel_figure
from .samples import Samples

LEVELS = (0.25, 0.5, 1, 1.5, 2, 3, 4)  # of w_EA over its mean
BINS = 40
ERROR = {"s": 4, "color": "#D40000", "linewidths": 0, "alpha": 0.6, "rasterized": True}


def draw_weights(
    teacher: Samples,
    students: Mapping[str, Samples],
    summaries: Mapping[str, str],
    rows: list[list[str]],
    *,
    temperature: float,
    what: str,
) -> Figure:
    """How many samples lie where in the plane of (H_T, H_S), and lines of equal w_EA.

    Args:
        summaries: student -> a line for its title.
        rows: of `eakd_det.analysis.figures.panel_rows`, of the students.
        temperature: of the entropies.
        what: the samples are called.
    """
    figure, panels = panel_figure(rows, (4.4, 4.2))
    for name, axes in panels.items():
        _draw_plane(axes, teacher, students[name], temperature)
        axes.set_title(f"{name}\n{summaries[name]}", fontsize=9)
    figure.suptitle(
        f"{len(teacher.labels)} {what} by both entropies (temperature {temperature:g})\n"
        "lines: $w_{EA}$ over its mean; red: the student errs\n"
        "The steeper the lines, the less the student's factor does",
        fontsize=10,
    )
    return figure


def _draw_plane(axes: Axes, teacher: Samples, student: Samples, temperature: float) -> None:
    h_t, h_s = teacher.entropy(temperature), student.entropy(temperature)
    number, wrong = student.logits.shape[1], ~student.is_correct
    most = math.log(number)
    options = {"gridsize": BINS, "extent": (0, most, 0, most), "mincnt": 1, "linewidths": 0.1}
    axes.hexbin(h_t, h_s, cmap="Blues", norm=LogNorm(), **options)
    axes.scatter(h_t[wrong], h_s[wrong], **ERROR)
    mean = combine_entropies(h_s, h_t, number).mean()
    ends = torch.linspace(0, most, 101)
    x, y = torch.meshgrid(ends, ends, indexing="xy")
    lines = axes.contour(
        x, y, combine_entropies(y, x, number) / mean, levels=LEVELS, colors="black", linewidths=0.9
    )
    axes.clabel(lines, fmt=lambda level: f"{level:g} x", fontsize=8)
    axes.set(xlim=(0, most), ylim=(0, most), aspect="equal")
    axes.set(xlabel="teacher entropy $H_T$ (nats)", ylabel="student entropy $H_S$ (nats)")
