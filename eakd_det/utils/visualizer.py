"""Pictures of scenes with the detections of several detectors, and of ROIs by their EA weight."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.data import Metadata
from detectron2.data.detection_utils import read_image
from detectron2.structures import BoxMode, Instances
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .drawing import FONT, INK, PAPER, draw_boxes
from .files import write_atomically

GAP, TITLE_HEIGHT, LINE_HEIGHT = 6, 34, 24  # pixels


def draw_side_by_side(
    path: str,
    scenes: list[dict[str, Any]],
    metadata: Metadata,
    detections: dict[str, dict[int, Instances]],
    *,
    threshold: float = 0.5,
) -> None:
    """Write a PNG with one row a scene: ground truth, then a column for each detector.

    Args:
        path: path of the PNG.
        scenes: Detectron2 dataset dicts.
        metadata: metadata of the dataset, with the class names.
        detections: title of a column -> image id -> detections; images without have no id.
        threshold: least score of the detections to draw.
    """
    rows = []
    for scene in scenes:
        image = read_image(scene["file_name"], "RGB")
        panels = [_draw_truth(image, scene, metadata)]
        for by_image in detections.values():
            found = by_image.get(scene["image_id"])
            if found is not None:
                found = found[found.scores >= threshold]
            panels.append(_draw_found(image, found, metadata))
        rows.append(panels)
    with write_atomically(path, "wb") as f:
        join_panels(rows, ["ground truth", *detections]).save(f, format="PNG")


def draw_weights(
    image: np.ndarray,
    boxes: np.ndarray,
    weight: Tensor,
    student_scores: Tensor,
    teacher_scores: Tensor,
    names: list[str],
    *,
    number: int = 6,
) -> np.ndarray:
    """Draw the ROIs with the highest w_EA on an image, and beside it those with the lowest.

    Args:
        image: (H, W, 3) RGB.
        boxes: (R, 4) x1, y1, x2, y2 in its pixels.
        weight: (R,) w_EA.
        student_scores, teacher_scores: (R, C) probabilities.
        names: names of the C classes.
        number: number of ROIs on each side.

    Returns:
        (H', W', 3) picture. The lines below each panel give w_EA of each ROI, then class and
        probability of teacher (T) and student (S).
    """
    order = weight.argsort(descending=True)
    number = min(number, len(order))
    panels = []
    for chosen in (order[:number], order[len(order) - number :]):
        lines = [
            f"{i}: {w:.2f}   T {_top(teacher, names)}   S {_top(student, names)}"
            for i, (w, teacher, student) in enumerate(
                zip(weight[chosen], teacher_scores[chosen], student_scores[chosen], strict=True), 1
            )
        ]
        classes = teacher_scores[chosen].argmax(dim=1).tolist()
        numbers = [str(i) for i in range(1, number + 1)]
        panels.append(
            _write_below(draw_boxes(image, boxes[chosen.numpy()], classes, numbers), lines)
        )
    return np.asarray(join_panels([panels], ["highest w_EA", "lowest w_EA"]))


def draw_detections(image: np.ndarray, found: Instances, names: Sequence[str]) -> np.ndarray:
    """Draw the boxes of detections with class names and scores, as `draw_boxes` does.

    Args:
        image: (H, W, 3) RGB.
        found: detections, with pred_boxes in pixels of the image, scores and pred_classes.
        names: class names.
    """
    classes = found.pred_classes.tolist()
    labels = [
        f"{names[c]}: {100 * score:.0f} %"
        for c, score in zip(classes, found.scores.tolist(), strict=True)
    ]
    return draw_boxes(image, found.pred_boxes.tensor.numpy(), classes, labels)


def join_panels(rows: list[list[np.ndarray]], titles: list[str]) -> Image.Image:
    """Paste (H, W, 3) panels into a grid with a title over each column."""
    width = max(panel.shape[1] for row in rows for panel in row)
    heights = [max(panel.shape[0] for panel in row) for row in rows]
    size = ((width + GAP) * len(titles), TITLE_HEIGHT + sum(heights) + GAP * len(rows))
    sheet = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.truetype(FONT, 20)
    for column, title in enumerate(titles):
        draw.text((column * (width + GAP) + GAP, GAP // 2), title, fill=INK, font=font)
    top = TITLE_HEIGHT
    for row, height in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            sheet.paste(Image.fromarray(panel), (column * (width + GAP), top))
        top += height + GAP
    return sheet


def _write_below(panel: np.ndarray, lines: list[str]) -> np.ndarray:
    height, width = panel.shape[:2]
    sheet = Image.new("RGB", (width, height + LINE_HEIGHT * len(lines)), PAPER)
    sheet.paste(Image.fromarray(panel))
    draw, font = ImageDraw.Draw(sheet), ImageFont.truetype(FONT, 16)
    for i, line in enumerate(lines):
        draw.text((GAP, height + LINE_HEIGHT * i), line, fill=INK, font=font)
    return np.asarray(sheet)


def _top(scores: Tensor, names: list[str]) -> str:
    score, index = scores.max(dim=0)
    return f"{names[index]}: {100 * score:.0f} %"


def _draw_truth(image: np.ndarray, scene: dict[str, Any], metadata: Metadata) -> np.ndarray:
    annotations = scene["annotations"]
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    classes = [a["category_id"] for a in annotations]
    labels = [metadata.thing_classes[c] for c in classes]
    return draw_boxes(image, np.array(boxes).reshape(-1, 4), classes, labels)


def _draw_found(image: np.ndarray, found: Instances | None, metadata: Metadata) -> np.ndarray:
    if found is None:
        return draw_boxes(image, np.zeros((0, 4)), [], [])
    return draw_detections(image, found, metadata.thing_classes)
