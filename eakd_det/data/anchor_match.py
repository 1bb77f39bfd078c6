"""Best overlap of boxes with a detector's anchors."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class AnchorLevel(NamedTuple):
    """Anchors of a feature map.

    Attributes:
        stride: distance of the anchors' centres in pixels of the network's input.
        offset: position of the first centre as a fraction of the stride.
        shapes: (A, 2) width and height in pixels.
    """

    stride: int
    offset: float
    shapes: np.ndarray


def best_iou(boxes: np.ndarray, levels: Sequence[AnchorLevel]) -> np.ndarray:
    """Return the highest IoU of each box with the anchors of the nearest position of each level.

    Args:
        boxes: (N, 4) x1, y1, x2, y2 in pixels of the network's input.

    Returns:
        (N,)
    """
    centres, shapes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    best = np.zeros(len(boxes))
    for stride, offset, anchors in levels:
        position = centres / stride - offset
        distance = np.abs(position - np.rint(position)) * stride
        for anchor in anchors:
            sides = np.minimum(anchor / 2, distance + shapes / 2)
            sides -= np.maximum(-anchor / 2, distance - shapes / 2)
            shared = sides.clip(0).prod(axis=1)
            np.maximum(best, shared / (shapes.prod(axis=1) + anchor.prod() - shared), out=best)
    return best


def too_small(boxes: np.ndarray, levels: Sequence[AnchorLevel], threshold: float) -> np.ndarray:
    """Return for each box if it is smaller than all anchors and reaches no IoU of `threshold`.

    Args:
        boxes: (N, 4), as `best_iou` takes them.

    Returns:
        (N,) booleans.
    """
    smallest = min(level.shapes.prod(axis=1).min() for level in levels)
    is_smaller = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) < smallest
    return is_smaller & (best_iou(boxes, levels) < threshold)
