"""Boxes of COCO objects, x, y, width, height in pixels: faults, and what they look like in all."""

import math
from collections.abc import Iterator
from typing import Any

Size = tuple[int, int]  # width and height of an image

SLACK = 1.0  # pixels that a box may reach over the image's edge, as rounding makes it
MIN_SHARE = 0.1  # of a box's area that must be left of it where it is clipped
PLAIN = 0.95  # share of boxes from which all are taken to be of a kind
SOME = 0.1  # share of boxes that must reach out of their images where corners are suspected


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def box_fault(box: Any, size: Size | None) -> str:
    """Why a box cannot be trained on, or nothing.

    Args:
        size: of its image, where it is known.
    """
    if not isinstance(box, list) or len(box) != 4:
        return "is no list of x, y, width, height"
    if not all(map(is_number, box)):
        return "has a value that is no finite number"
    _, _, width, height = box
    if width < 0 or height < 0:
        return "is inverted: width and height must be positive (is it x1, y1, x2, y2?)"
    if width == 0 or height == 0:
        return "has no size"
    if size is not None and _reaches_out(box, size):
        return f"reaches out of the image of {size[0]} x {size[1]} (see --clip-boxes)"
    return ""


def clip_boxes(data: dict[str, Any], sizes: dict[Any, Size]) -> Iterator[str]:
    """Cut boxes off at the edges of their images, and leave out those of which little is left.

    An area shrinks as the box does. Faulty boxes stay as they are.

    Args:
        sizes: by image id, as far as they are known.

    Yields:
        How many, in a sentence.
    """
    kept, clipped = [], 0
    for annotation in data["annotations"]:
        size = sizes.get(annotation["image_id"])
        if size is None or box_fault(annotation["bbox"], None):
            kept.append(annotation)
            continue
        x, y, width, height = annotation["bbox"]
        x1, x2 = (min(max(v, 0), size[0]) for v in (x, x + width))
        y1, y2 = (min(max(v, 0), size[1]) for v in (y, y + height))
        share = (x2 - x1) * (y2 - y1) / (width * height)
        if share < MIN_SHARE:
            continue
        if x1 != x or y1 != y or x2 != x + width or y2 != y + height:
            clipped += 1
            annotation["bbox"] = [x1, y1, x2 - x1, y2 - y1]
            if is_number(annotation.get("area")):
                annotation["area"] *= share
        kept.append(annotation)
    number, data["annotations"] = len(data["annotations"]), kept
    if clipped or number > len(kept):
        yield (
            f"{clipped} of {number} boxes are clipped to their images, and "
            f"{number - len(kept)} are left out, of which less than {MIN_SHARE:.0%} was inside."
        )


def doubts(annotations: list[dict[str, Any]], sizes: dict[Any, Size]) -> Iterator[str]:
    """List, in sentences, the signs that boxes are not x, y, width, height in pixels."""
    boxes = [
        (a["bbox"], sizes[a["image_id"]])
        for a in annotations
        if a["image_id"] in sizes and isinstance(a["bbox"], list) and len(a["bbox"]) == 4
    ]
    boxes = [(box, size) for box, size in boxes if all(map(is_number, box))]
    if not boxes:
        return
    small = sum(all(0 <= v <= 1 for v in box) for box, _ in boxes) / len(boxes)
    if small >= PLAIN:
        yield (
            f"{small:.0%} of the boxes have all values between 0 and 1: are they shares of the "
            "image? COCO's are in pixels."
        )
    corners = sum(_is_corners(box, size) for box, size in boxes) / len(boxes)
    outside = sum(_is_corners(box, size) and _reaches_out(box, size) for box, size in boxes)
    if corners >= PLAIN and outside / len(boxes) >= SOME:
        yield (
            f"{outside / len(boxes):.0%} of the boxes reach out of their images as x, y, width, "
            f"height, and {corners:.0%} lie within as x1, y1, x2, y2: are they in that order? "
            "COCO's are x, y, width, height."
        )


def _reaches_out(box: list[float], size: Size) -> bool:
    x, y, width, height = box
    is_before = min(x, y) < -SLACK
    return is_before or x + width > size[0] + SLACK or y + height > size[1] + SLACK


def _is_corners(box: list[float], size: Size) -> bool:
    """Whether it may be x1, y1, x2, y2."""
    x1, y1, x2, y2 = box
    return -SLACK <= x1 < x2 <= size[0] + SLACK and -SLACK <= y1 < y2 <= size[1] + SLACK
