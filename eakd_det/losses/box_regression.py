"""Bounded box regression towards a teacher, after Chen et al., NeurIPS 2017.

("Learning Efficient Object Detection Models with Knowledge Distillation".) The bound is theirs, the
loss under it ours. R counts foreground ROIs; deltas are the (dx, dy, dw, dh) of a box head, in one
unit.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .reduction import at_least_float32, reduce_samples


def bounded_box_loss(
    student_deltas: Tensor,
    teacher_deltas: Tensor,
    target_deltas: Tensor,
    *,
    margin: float = 0.0,
    beta: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Smooth L1 loss to the teacher's deltas, of ROIs where the teacher is the better one.

    A ROI counts where |student - target|^2 + margin > |teacher - target|^2, the bound of Chen et
    al.; elsewhere its loss is 0.

    Args:
        student_deltas, teacher_deltas, target_deltas: (R, 4). Only the student's side gets a
            gradient. A ROI whose target is not finite does not count.
        margin: in the deltas' squared unit.
        beta: difference at which the smooth L1 loss turns from square to linear; 0 is L1.
        weight: (R,) factor of each ROI, or None.
        reduction: "mean" over the R ROIs, or "none".

    Returns:
        A scalar, or (R,) with "none", the sum over the four deltas; at least float32. No ROI gives
        a zero joined to the graph.

    Raises:
        ValueError: `weight` is not (R,), or `reduction` is unknown.
    """
    student = at_least_float32(student_deltas)
    teacher, target = (at_least_float32(x.detach()) for x in (teacher_deltas, target_deltas))
    with torch.no_grad():
        student_error, teacher_error = (
            (x - target).square().sum(dim=1) for x in (student, teacher)
        )
        counts = student_error + margin > teacher_error
    loss = F.smooth_l1_loss(student, teacher, beta=beta, reduction="none").sum(dim=1)
    return reduce_samples(loss.masked_fill(~counts, 0), weight, reduction)
