"""Decoupled knowledge distillation, DKD (Zhao et al., CVPR 2022, arXiv 2203.08679).

N counts samples (images, ROIs or tokens), C the classes of the softmax. EA-DKD is
`dkd_loss(..., weight=entropy_weight(...))`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .reduction import at_least_float32, reduce_samples


def dkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """alpha * TCKD + beta * NCKD (arXiv 2203.08679, equation 7), both times T^2.

    TCKD is the KL between (target, all others) of both networks, NCKD the KL between their
    distributions over the classes other than the target.

    Args:
        student_logits, teacher_logits: (N, C), C at least 2. The teacher's side gets no gradient.
        labels: (N,) int64 in [0, C): the target class; background counts as a class.
        alpha, beta: weights of TCKD and NCKD.
        temperature: T.
        weight: (N,) factor of each sample, or None.
        reduction: "mean" over the N samples, or "none".

    Returns:
        A scalar, or (N,) with "none"; at least float32. No samples give a zero joined to the graph.
        With C = 2 only one class is left beside the target, and NCKD is 0.

    Raises:
        ValueError: C is 1, `weight` is not (N,), or `reduction` is unknown.
    """
    if student_logits.shape[-1] < 2:
        raise ValueError(f"DKD needs at least 2 classes, got logits {tuple(student_logits.shape)}")
    student = at_least_float32(student_logits) / temperature
    teacher = at_least_float32(teacher_logits.detach()) / temperature
    target = torch.zeros_like(student, dtype=torch.bool).scatter_(1, labels.unsqueeze(1), True)
    student_pair, student_rest = _decouple(student, labels, target)
    teacher_pair, teacher_rest = _decouple(teacher, labels, target)
    tckd = F.kl_div(student_pair, teacher_pair, reduction="none", log_target=True).sum(dim=1)
    # The target's own entry is -inf on both sides; kl_div would make it NaN.
    nckd = teacher_rest.exp() * (teacher_rest - student_rest).masked_fill(target, 0.0)

    loss = (alpha * tckd + beta * nckd.sum(dim=1)) * temperature**2
    return reduce_samples(loss, weight, reduction)


def _decouple(logits: Tensor, labels: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the log-probabilities of DKD's two distributions from logits (N, C) over T.

    One log-softmax over the other classes gives both. A log-softmax over all classes, which other
    losses share, loses the precision of the others where the target has nearly all probability.

    Returns:
        (N, 2): target, and all other classes together. (N, C): the other classes among themselves,
        -inf at the target.
    """
    others = logits.masked_fill(target, -torch.inf)
    rest = F.log_softmax(others, dim=1)
    top = others.detach().argmax(dim=1, keepdim=True)
    logsumexp = others.gather(1, top) - rest.gather(1, top)
    gap = logits.gather(1, labels.unsqueeze(1)) - logsumexp
    return F.logsigmoid(torch.cat([gap, -gap], dim=1)), rest
