"""Box regression targets."""

from collections.abc import Sequence

import torch
from torch import Tensor


def box_deltas(boxes: Tensor, targets: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the deltas (dx, dy, dw, dh) from boxes to targets, (R, 4), times the weights.

    They equal those of Detectron2's `Box2BoxTransform(weights).get_deltas`, which waits for the
    device to check that the boxes have a size; those of a box or a target without are not finite.

    Args:
        boxes, targets: (R, 4) xyxy.
    """
    sizes, target_sizes = (x[:, 2:] - x[:, :2] for x in (boxes, targets))
    centers, target_centers = (x[:, :2] + 0.5 * (x[:, 2:] - x[:, :2]) for x in (boxes, targets))
    shifts = (target_centers - centers) / sizes
    scales = (target_sizes / sizes).log()
    columns = torch.cat([shifts, scales], dim=1).unbind(1)
    return torch.stack([x * w for x, w in zip(columns, weights, strict=True)], dim=1)
