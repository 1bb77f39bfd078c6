"""Transformed teacher matching, TTM and WTTM (Zheng and Yang, ICLR 2024, arXiv 2402.11148).

The student has no temperature; gamma is the exponent of the teacher's probabilities, which an
ordinary temperature is the inverse of. N counts samples, C classes. EA-TTM is
`ttm_loss(..., weight=entropy_weight(...))`.
"""

from torch import Tensor
from torch.nn import functional as F

from .reduction import at_least_float32, reduce_samples


def ttm_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    gamma: float = 0.1,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """KL(softmax(gamma * teacher) || softmax(student)) (arXiv 2402.11148, equation 11).

    Args:
        student_logits, teacher_logits: (N, C). The teacher's side gets no gradient.
        gamma: power that the teacher's probabilities are raised to before they are normalised.
        weight: (N,) factor of each sample, or None.
        reduction: "mean" over the N samples, or "none".

    Returns:
        A scalar, or (N,) with "none"; at least float32. No samples give a zero joined to the graph.

    Raises:
        ValueError: `weight` is not (N,), or `reduction` is unknown.
    """
    student = F.log_softmax(at_least_float32(student_logits), dim=-1)
    teacher = F.log_softmax(gamma * at_least_float32(teacher_logits.detach()), dim=-1)
    # kl_div takes (log q, log p) for KL(p || q): the student stands first.
    loss = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1)
    return reduce_samples(loss, weight, reduction)


def wttm_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    gamma: float = 0.1,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """`ttm_loss` times each sample's power sum (arXiv 2402.11148, equation 18).

    The power sum U, the sum of the teacher's probabilities to the power gamma, is large where the
    teacher is uncertain; it does not change with the student. Arguments as those of `ttm_loss`.
    """
    teacher = F.log_softmax(at_least_float32(teacher_logits.detach()), dim=-1)
    power_sum = (gamma * teacher).logsumexp(dim=-1).exp()
    loss = ttm_loss(student_logits, teacher_logits, gamma=gamma, weight=weight, reduction="none")
    return reduce_samples(power_sum * loss, None, reduction)
