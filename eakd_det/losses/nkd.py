"""Normalised knowledge distillation, NKD (Yang et al., ICCV 2023, arXiv 2303.13005).

N counts samples (images or ROIs), C the classes of the softmax. EA-NKD is
`nkd_loss(..., weight=entropy_weight(...))`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .reduction import at_least_float32, reduce_samples


def nkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    gamma: float = 1.5,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-p_y log q_y - gamma T^2 sum over the others of p^ log q^ (arXiv 2303.13005, section 3).

    p and q are the softmaxes of teacher and student at temperature 1, y the label; p^ and q^ are
    those over the other classes alone, at temperature T. Both terms are cross-entropies, so that
    equal logits do not give 0.

    Args:
        student_logits, teacher_logits: (N, C), C at least 2. The teacher's side gets no gradient.
        labels: (N,) int64 in [0, C): the target class; background counts as a class.
        gamma: weight of the term of the other classes.
        temperature: T.
        weight: (N,) factor of each sample, or None.
        reduction: "mean" over the N samples, or "none".

    Returns:
        A scalar, or (N,) with "none"; at least float32. No samples give a zero joined to the graph.
        With C = 2 only one class is left beside the target, and its term is 0.

    Raises:
        ValueError: C is 1, `weight` is not (N,), or `reduction` is unknown.
    """
    if student_logits.shape[-1] < 2:
        raise ValueError(f"NKD needs at least 2 classes, got logits {tuple(student_logits.shape)}")
    student = at_least_float32(student_logits)  # once, so that half gradients are rounded once
    teacher = at_least_float32(teacher_logits.detach())
    index = labels.unsqueeze(1)
    log_q, log_p = (F.log_softmax(z, dim=1).gather(1, index).squeeze(1) for z in (student, teacher))
    target = torch.zeros_like(student, dtype=torch.bool).scatter_(1, index, True)
    student_rest, teacher_rest = (
        F.log_softmax(z.masked_fill(target, -torch.inf) / temperature, dim=1)
        for z in (student, teacher)
    )
    # The target's own entry is -inf; 0 * -inf would be NaN.
    others = (teacher_rest.exp() * student_rest.masked_fill(target, 0.0)).sum(dim=1)
    loss = -log_p.exp() * log_q - gamma * temperature**2 * others
    return reduce_samples(loss, weight, reduction)
