"""Figure of the plane of teacher and student entropy, with lines of equal w_EA."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from eakd_det.losses.entropy import combine_entropies

from .figures import log_bar, panel_figure
from .samples import Samples

NUM_LEVELS = 8  # largest number of lines of equal w_EA
BINS = 40
MARGIN = 0.07  # fraction of a panel, at each edge, without labels of lines
COUNTS = ListedColormap(colormaps["Blues"](np.linspace(0.3, 1, 256)))  # one sample is not white
ERROR = {"s": 3, "color": "#D40000", "linewidths": 0, "alpha": 0.5, "rasterized": True}


def draw_weights(
    teacher: Samples,
    students: Mapping[str, Samples],
    summaries: Mapping[str, str],
    rows: list[list[str]],
    *,
    temperature: float,
    what: str,
) -> Figure:
    """Draw the density of samples in the plane of (H_T, H_S), and lines of equal w_EA.

    Args:
        teacher, students: outputs for the same samples.
        summaries: student -> a line for its title.
        rows: rows of the students' panels, see `eakd_det.analysis.figures.panel_rows`.
        temperature: softmax temperature of the entropies.
        what: name of the samples, in the plural.
    """
    figure, panels = panel_figure(rows, (4.4, 4.2))
    cells, window = [], _window(teacher, students.values(), temperature)
    for name, axes in panels.items():
        cells.append(_draw_plane(axes, teacher, students[name], temperature, window))
        axes.set_title(f"{name}\n{summaries[name]}", fontsize=9)
    norm = LogNorm(1, max(2, *(of.get_array().max() for of in cells)))
    for of in cells:
        of.set_norm(norm)
    log_bar(figure, panels, norm, COUNTS).set_label(f"{what} in a cell (log scale)")
    figure.suptitle(
        f"{len(teacher.labels)} {what} by both entropies (temperature {temperature:g})\n"
        "lines: $w_{EA}$ over its mean; red: the student errs\n"
        "The steeper the lines, the less the student's factor does",
        fontsize=10,
    )
    return figure


def _window(
    teacher: Samples, students: Iterable[Samples], temperature: float
) -> tuple[float, float, float, float]:
    """Compute a square that contains all samples, with equal scales so that slopes can be compared.

    Returns:
        The lowest and the highest H_T, the lowest and the highest H_S.
    """
    h_t = teacher.entropy(temperature)
    h_s = torch.cat([student.entropy(temperature) for student in students])
    most = math.log(teacher.logits.shape[1])
    side = max(float(h_t.max() - h_t.min()), float(h_s.max() - h_s.min()), 0.05 * most) * 1.1
    starts = []
    for entropy in (h_t, h_s):
        middle = float(entropy.max() + entropy.min()) / 2
        starts.append(max(0.0, min(middle - side / 2, most - side)))
    return starts[0], starts[0] + side, starts[1], starts[1] + side


def _draw_plane(
    axes: Axes,
    teacher: Samples,
    student: Samples,
    temperature: float,
    window: tuple[float, float, float, float],
) -> PolyCollection:
    """Draw a student's samples and lines; return its cells, whose values count the samples."""
    h_t, h_s = teacher.entropy(temperature), student.entropy(temperature)
    number, wrong = student.logits.shape[1], ~student.is_correct
    options = {"gridsize": BINS, "extent": window, "mincnt": 1, "linewidths": 0.1}
    cells = axes.hexbin(h_t, h_s, cmap=COUNTS, **options)
    axes.scatter(h_t[wrong], h_s[wrong], **ERROR)
    mean = combine_entropies(h_s, h_t, number).mean()
    x, y = torch.meshgrid(
        torch.linspace(*window[:2], 101), torch.linspace(*window[2:], 101), indexing="xy"
    )
    weight = (combine_entropies(y, x, number) / mean).numpy()
    levels = MaxNLocator(NUM_LEVELS).tick_values(weight.min(), weight.max())
    lines = axes.contour(x, y, weight, levels=levels, colors="black", linewidths=0.9)
    axes.set(xlim=window[:2], ylim=window[2:], aspect="equal")
    axes.set(xlabel="teacher entropy $H_T$ (nats)", ylabel="student entropy $H_S$ (nats)")
    _label_lines(axes, lines)
    return cells


def _label_lines(axes: Axes, lines: ContourSet) -> None:
    """Write each level in the middle of its line, unless it is too close to the frame."""
    to_panel = axes.transLimits
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        if len(path.vertices):
            place = path.vertices[len(path.vertices) // 2]
            if (np.abs(to_panel.transform(place) - 0.5) < 0.5 - MARGIN).all():
                text = axes.text(*place, f"{level:.3g} x", fontsize=8, ha="center", va="center")
                text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
