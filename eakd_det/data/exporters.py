"""Corrections of COCO-format files for what single exporters write differently.

docs/datasets.md has the table of the exporters.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from .boxes import box_problem, is_number
from .image_files import ImageFile
from .orientation import upright_size

LABEL_STUDIO = "Label Studio"  # its name in info.contributor


def remove_root_category(data: dict[str, Any]) -> Iterator[str]:
    """Remove the category without boxes that Roboflow adds as the parent of all others.

    Yields:
        A sentence about it, if there is one.
    """
    categories = data["categories"]
    used = {annotation["category_id"] for annotation in data["annotations"]}
    for root in categories:
        others = [category for category in categories if category is not root]
        is_root = root.get("supercategory", "none") == "none" and root["id"] not in used
        if is_root and others and all(c.get("supercategory") == root["name"] for c in others):
            data["categories"] = others
            yield (
                f"category {root['name']!r} has no boxes and is the parent of all others, as "
                "Roboflow writes it: it is not used as a class."
            )


def enclose_rotated_boxes(annotations: list[dict[str, Any]]) -> Iterator[str]:
    """Replace the boxes of CVAT's rotated rectangles by the upright boxes around them.

    CVAT writes the rectangle as it was before its rotation by attributes.rotation degrees about its
    centre. The area stays that of the rectangle.

    Yields:
        A sentence with their number, if there are any.
    """
    rotated = 0
    for annotation in annotations:
        angle = _rotation(annotation)
        if not angle or annotation.get("segmentation") or box_problem(annotation["bbox"], None):
            continue
        x, y, width, height = annotation["bbox"]
        cos, sin = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
        wide, high = width * cos + height * sin, width * sin + height * cos
        annotation.setdefault("area", width * height)
        annotation["bbox"] = [x + (width - wide) / 2, y + (height - high) / 2, wide, high]
        rotated += 1
    if rotated:
        yield (
            f"{rotated} of {len(annotations)} boxes are rotated rectangles (CVAT writes their "
            "angle as attributes.rotation): the upright boxes around them are used."
        )


def correct_displayed_sizes(data: dict[str, Any], files: Sequence[ImageFile]) -> Iterator[str]:
    """Swap the sizes that Label Studio writes as stored for images stored sideways (EXIF).

    Its rectangles are those of the upright image; its polygons are stretched to the stored size.

    Args:
        data: COCO dict, whose images get the upright size, and whose polygons are stretched to it.
        files: of its images.

    Yields:
        A sentence with their number, if there are any.
    """
    info = data.get("info")
    if not isinstance(info, dict) or info.get("contributor") != LABEL_STUDIO:
        return
    swapped = {}
    for image, file in zip(data["images"], files, strict=True):
        claimed, upright = (image.get("width"), image.get("height")), upright_size(file)
        if claimed == (file.width, file.height) != upright:
            image["width"], image["height"] = upright
            swapped[image["id"]] = file.height / file.width
    for annotation in data["annotations"]:
        if annotation["image_id"] in swapped and annotation.get("segmentation"):
            _stretch(annotation, swapped[annotation["image_id"]])
    if swapped:
        yield (
            f"{len(swapped)} of {len(files)} images are stored sideways (EXIF), and Label Studio "
            "writes their stored size with objects of the upright image: the upright size is used."
        )


def _stretch(annotation: dict[str, Any], factor: float) -> None:
    """Multiply x by a factor, and divide y by it; box and polygons that are faulty stay."""

    def stretch(values: Any) -> Any:
        if not isinstance(values, list) or not all(map(is_number, values)):
            return values
        return [value / factor if i % 2 else value * factor for i, value in enumerate(values)]

    annotation["bbox"] = stretch(annotation["bbox"])
    if isinstance(annotation["segmentation"], list):
        annotation["segmentation"] = [stretch(x) for x in annotation["segmentation"]]


def _rotation(annotation: dict[str, Any]) -> float:
    attributes = annotation.get("attributes")
    angle = attributes.get("rotation", 0) if isinstance(attributes, dict) else 0
    return angle if is_number(angle) else 0
