"""Clipping of COCO segmentations to a part of their image."""

from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as mask_util

from eakd_det.data.masks import MIN_NUMBERS

Point = tuple[float, float]


class Window(NamedTuple):
    """Rectangle of whole pixels in an image."""

    x: int
    y: int
    width: int
    height: int


def clip_mask(mask: Any, window: Window) -> Any:
    """Clip a segmentation to a window, in whose coordinates it is returned.

    Args:
        mask: list of polygons (x, y, x, y, ...), or RLE of the whole image.

    Returns:
        Polygons, or compressed RLE of the window; empty if nothing of the mask is inside.
    """
    if isinstance(mask, dict):
        return _clip_rle(mask, window)
    polygons = [_clip_polygon(polygon, window) for polygon in mask]
    return [polygon for polygon in polygons if len(polygon) >= MIN_NUMBERS]


def _clip_rle(mask: dict[str, Any], window: Window) -> dict[str, Any]:
    is_list = isinstance(mask["counts"], list)
    rle = mask_util.frPyObjects(mask, *mask["size"]) if is_list else mask
    rows = slice(window.y, window.y + window.height)
    part = mask_util.decode(rle)[rows, window.x : window.x + window.width]
    if not part.any():
        return {}
    encoded = mask_util.encode(np.asfortranarray(part))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def _clip_polygon(polygon: list[float], window: Window) -> list[float]:
    """Clip a polygon by the algorithm of Sutherland and Hodgman (1974).

    Parts of a concave polygon are joined by lines along the edge, which enclose no area.
    """
    points = [
        (x - window.x, y - window.y) for x, y in zip(polygon[::2], polygon[1::2], strict=True)
    ]
    for axis, limit, sign in (
        *((0, 0, 1), (0, window.width, -1)),
        *((1, 0, 1), (1, window.height, -1)),
    ):
        points = _clip_side(points, axis, limit, sign)
    return [value for point in points for value in point]


def _clip_side(points: list[Point], axis: int, limit: float, sign: int) -> list[Point]:
    """Keep the part of a polygon where `sign * (point[axis] - limit)` is not negative."""
    kept = []
    for start, end in zip(points, points[1:] + points[:1], strict=True):
        before, after = (sign * (point[axis] - limit) for point in (start, end))
        if before >= 0:
            kept.append(start)
        if (before >= 0) != (after >= 0):
            part = before / (before - after)
            crossing = [a + part * (b - a) for a, b in zip(start, end, strict=True)]
            crossing[axis] = limit
            kept.append((crossing[0], crossing[1]))
    return kept
