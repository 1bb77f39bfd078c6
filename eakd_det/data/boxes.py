"""Checks of the boxes of COCO objects, which are x, y, width, height in pixels."""

import math
from collections.abc import Iterator
from typing import Any

Size = tuple[int, int]  # width and height of an image

SLACK = 1.0  # pixels by which a box may extend beyond the image, as rounding causes it
MIN_SHARE = 0.1  # least fraction of a box's area that clipping must leave
PLAIN = 0.95  # fraction of boxes of another format from which all are taken to have it
SOME = 0.1  # least fraction of boxes outside their images for corners to be suspected


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def box_problem(box: Any, size: Size | None) -> str:
    """Return the reason why a box cannot be trained on, empty if it can.

    Args:
        size: size of its image, if it is known.
    """
    if not isinstance(box, list) or len(box) != 4:
        return "is not a list of x, y, width, height"
    if not all(map(is_number, box)):
        return "has a value that is not a finite number"
    _, _, width, height = box
    if width < 0 or height < 0:
        return "is inverted: width and height must be positive (is it x1, y1, x2, y2?)"
    if width == 0 or height == 0:
        return "has no size"
    if size is not None and _reaches_out(box, size):
        return f"extends beyond the image of {size[0]} x {size[1]} (see --clip-boxes)"
    return ""


def clip_boxes(data: dict[str, Any], sizes: dict[Any, Size]) -> Iterator[str]:
    """Clip boxes to their images, and remove those with less than MIN_SHARE of their area inside.

    The area of an annotation is scaled with its box. Boxes with a problem are not changed.

    Args:
        sizes: image id -> size, for the images whose size is known.

    Yields:
        A sentence with the numbers of clipped and removed boxes, if there are any.
    """
    kept, clipped = [], 0
    for annotation in data["annotations"]:
        size = sizes.get(annotation["image_id"])
        if size is None or box_problem(annotation["bbox"], None):
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
            f"{number - len(kept)} with less than {MIN_SHARE:.0%} inside are removed."
        )


def format_warnings(annotations: list[dict[str, Any]], sizes: dict[Any, Size]) -> Iterator[str]:
    """Yield a sentence for each sign that the boxes are not x, y, width, height in pixels."""
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
            f"{small:.0%} of the boxes have all values between 0 and 1: are they relative to the "
            "image size? COCO's are in pixels."
        )
    corners = sum(_is_corners(box, size) for box, size in boxes) / len(boxes)
    outside = sum(_is_corners(box, size) and _reaches_out(box, size) for box, size in boxes)
    if corners >= PLAIN and outside / len(boxes) >= SOME:
        yield (
            f"{outside / len(boxes):.0%} of the boxes extend beyond their images when read as x, "
            f"y, width, height, and {corners:.0%} lie inside when read as x1, y1, x2, y2: are they "
            "corners? COCO's are x, y, width, height."
        )


def _reaches_out(box: list[float], size: Size) -> bool:
    x, y, width, height = box
    is_before = min(x, y) < -SLACK
    return is_before or x + width > size[0] + SLACK or y + height > size[1] + SLACK


def _is_corners(box: list[float], size: Size) -> bool:
    """Return True if the values form a box inside the image when read as x1, y1, x2, y2."""
    x1, y1, x2, y2 = box
    return -SLACK <= x1 < x2 <= size[0] + SLACK and -SLACK <= y1 < y2 <= size[1] + SLACK
