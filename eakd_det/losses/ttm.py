"""Transformed teacher matching, TTM and WTTM (Zheng and Yang, ICLR 2024, arXiv 2402.11148).

The student has no temperature, and there is no factor T^2. The teacher's probabilities p are raised
to the power gamma, which corresponds to 1 / T in KD. N counts samples, C classes. EA-TTM is
`ttm_loss(..., weight=entropy_weight(...))`.
"""

from torch import Tensor
from torch.nn import functional as F

from .reduction import at_least_float32, reduce_samples
from .softmax import log_softmax


def ttm_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    gamma: float = 0.1,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """KL(p^gamma / U || softmax(student)), U = sum of p^gamma (arXiv 2402.11148).

    Args:
        student_logits, teacher_logits: (N, C). The teacher's side gets no gradient.
        gamma: the exponent; 1 leaves the teacher's probabilities unchanged.
        weight: (N,) factor of each sample, or None.
        reduction: "mean" over the N samples, or "none".

    Returns:
        A scalar, or (N,) with "none"; at least float32. No samples give a zero joined to the graph.

    Raises:
        ValueError: `weight` is not (N,), or `reduction` is unknown.
    """
    student = log_softmax(student_logits)
    # p^gamma / U is the softmax of gamma * logits.
    teacher = log_softmax(gamma * at_least_float32(teacher_logits), constant=True)
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
    """U times the KL of `ttm_loss` (arXiv 2402.11148), with the same arguments.

    U is a constant of each sample and large where the teacher is uncertain: for gamma below 1 it
    lies between 1 and C^(1 - gamma).
    """
    log_p = log_softmax(teacher_logits, constant=True)
    power_sum = (gamma * log_p).logsumexp(dim=-1).exp()
    loss = ttm_loss(student_logits, teacher_logits, gamma=gamma, reduction="none")
    return reduce_samples(power_sum * loss, weight, reduction)
