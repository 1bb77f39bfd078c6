"""Checks of the segmentations of COCO objects."""

import math
from typing import Any

MIN_NUMBERS = 6  # coordinates of a polygon of three points


def remove_invalid_masks(annotations: list[dict[str, Any]]) -> int:
    """Remove invalid segmentations, because of which Detectron2 would drop the whole object.

    Of several polygons only the valid ones stay.

    Returns:
        Number of objects whose segmentation was removed.
    """
    lost = 0
    for annotation in annotations:
        segmentation = annotation.pop("segmentation", None)
        if isinstance(segmentation, list):
            mask = [polygon for polygon in segmentation if _is_polygon(polygon)]
        else:
            mask = segmentation if _is_rle(segmentation) else None
        if mask:
            annotation["segmentation"] = mask
        lost += bool(segmentation) and not mask
    return lost


def mask_problem(annotation: dict[str, Any], size: tuple[int, int] | None) -> str:
    """Return the reason why an object cannot train a mask head, empty if it can.

    Args:
        size: width and height of its image, if they are known.
    """
    segmentation = annotation.get("segmentation")
    if not segmentation:
        return "has no segmentation, and MODEL.MASK_ON trains masks"
    if isinstance(segmentation, list):
        if not any(map(_is_polygon, segmentation)):
            return f"segmentation {_shortened(segmentation)} has no polygon of three points"
    elif not _is_rle(segmentation):
        return f"segmentation {_shortened(segmentation)} is neither polygons nor RLE"
    elif size is not None and segmentation["size"] != [size[1], size[0]]:
        return f"has an RLE of the size {segmentation['size']} in an image of {size[0]} x {size[1]}"
    return ""


def has_rle(annotations: list[dict[str, Any]]) -> bool:
    """Return True if an object that is trained (no crowd) has a mask in RLE."""
    return any(
        isinstance(a.get("segmentation"), dict) and not a.get("iscrowd") for a in annotations
    )


def _is_polygon(polygon: Any) -> bool:
    return (
        isinstance(polygon, list)
        and len(polygon) >= MIN_NUMBERS
        and len(polygon) % 2 == 0
        and all(isinstance(v, int | float) and math.isfinite(v) for v in polygon)
    )


def _is_rle(segmentation: Any) -> bool:
    if not isinstance(segmentation, dict) or not isinstance(segmentation.get("size"), list):
        return False
    counts, size = segmentation.get("counts"), segmentation["size"]
    if len(size) != 2 or not all(type(side) is int for side in size):
        return False
    runs = _runs(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        return False
    return sum(runs) == size[0] * size[1]


def _runs(counts: str) -> list[int]:
    """Decode the run lengths of COCO's compressed RLE; [-1] for invalid text.

    A character holds five bits of a number, least significant first, and a bit that tells if more
    follow; from the fourth run on, numbers are differences from the run before the last.
    """
    runs, value, shift = [], 0, 0
    for character in counts:
        code = ord(character) - 48
        if not 0 <= code < 64:
            return [-1]
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, shift = 0, 0
    return runs if shift == 0 else [-1]


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
