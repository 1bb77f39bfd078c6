"""Pictures of single objects with the predictions of teacher and student."""

from collections.abc import Sequence

import numpy as np
from detectron2.data.detection_utils import read_image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from eakd_det.utils.drawing import INK, PAPER

from .objects import Objects
from .samples import Samples

COLUMNS = 6
MARGIN = 0.3  # shown around the box, as a fraction of its longer side
TOP = 2  # number of predicted classes to show


def draw_gallery(
    objects: Objects,
    teacher: Samples,
    student: Samples,
    weight: Tensor,
    chosen: Sequence[int],
    names: Sequence[str],
    title: str,
) -> Figure:
    """Draw crops of objects, with class and weight above and the detectors' predictions below.

    Args:
        weight: (N,) w_EA of the objects.
        chosen: indices of the objects to show, in this order.
        names: names of the K classes.
        title: title of the figure.
    """
    rows = -(-len(chosen) // COLUMNS)
    figure = Figure(
        figsize=(2.3 * COLUMNS, 2.9 * rows + 0.5), layout="constrained", facecolor=PAPER
    )
    panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes, index in zip(panels, chosen, strict=False):
        _draw_crop(axes, objects, index)
        name = names[objects.labels[index]]
        axes.set_title(f"{name}: $w_{{EA}}$ {weight[index]:.2f}", fontsize=9, color=INK)
        lines = [
            f"{side}  {top_classes(samples.logits[index], names)}"
            for side, samples in (("T", teacher), ("S", student))
        ]
        axes.set_xlabel("\n".join(lines), fontsize=9, color=INK)
    for axes in panels[len(chosen) :]:
        axes.set_axis_off()
    figure.suptitle(title, color=INK)
    return figure


def top_classes(logits: Tensor, names: Sequence[str]) -> str:
    """Format the most probable classes of an object with their probabilities.

    Args:
        logits: (K + 1,), background last.
        names: names of the K classes.
    """
    scores, classes = logits.softmax(dim=0).topk(min(TOP, len(logits)))
    known = [*names, "background"]
    pairs = zip(classes.tolist(), scores.tolist(), strict=True)
    return ", ".join(f"{known[i]}: {100 * score:.0f} %" for i, score in pairs)


def _draw_crop(axes: Axes, objects: Objects, index: int) -> None:
    """Draw an object and its surroundings in a square, grey outside the image."""
    image = read_image(objects.scenes[objects.places[index]]["file_name"], "RGB")
    x0, y0, x1, y1 = objects.boxes[index].tolist()
    half = max(x1 - x0, y1 - y0) * (0.5 + MARGIN)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    height, width = image.shape[:2]
    left, right = max(int(x - half), 0), min(int(np.ceil(x + half)), width)
    top, bottom = max(int(y - half), 0), min(int(np.ceil(y + half)), height)
    axes.imshow(
        image[top:bottom, left:right],
        extent=(left, right, bottom, top),
        interpolation="bicubic",
    )
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="yellow"))
    axes.set(xlim=(x - half, x + half), ylim=(y + half, y - half), xticks=[], yticks=[])
    axes.set_facecolor("0.85")
