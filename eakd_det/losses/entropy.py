"""Entropies and the adaptive weight of EA-KD (Su et al., ICCV 2025, arXiv 2311.13621).

N counts samples (images, ROIs or tokens), C the classes of the softmax.
"""

import math

import torch
from torch import Tensor

from .softmax import log_softmax


def entropy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Shannon entropy of softmax(logits / temperature), in nats.

    Args:
        logits: (N, C).
        temperature: divides the logits; above 1 it flattens the distribution.

    Returns:
        (N,), between 0 and log C; exact, not offset by an epsilon. Empty input gives (0,). A class
        with logit -inf contributes 0.
    """
    log_p = log_softmax(logits, temperature)
    finite = log_p.clamp(min=torch.finfo(log_p.dtype).min)  # 0 * -inf would be NaN
    return (log_p.exp() * -finite).sum(dim=-1)


def combine_entropies(
    student_entropy: Tensor, teacher_entropy: Tensor, num_classes: int, bound: float | None = None
) -> Tensor:
    """Compute w_EA = (H_T + H_T * H_S / H_ub) / 2 from given entropies; see `entropy_weight`.

    Raises:
        ValueError: `bound` is not positive, or None with fewer than 2 classes.
    """
    if bound is None:
        if num_classes < 2:
            raise ValueError("a softmax over one class has no entropy to weight by")
        bound = math.log(num_classes)
    if not bound > 0:
        raise ValueError(f"the upper bound of the entropy must be positive, got {bound}")
    return 0.5 * teacher_entropy * (1 + student_entropy / bound)


@torch.no_grad()
def entropy_weight(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 3.0,
    bound: float | None = None,
) -> Tensor:
    """Weight of each sample, w_EA = (H_T + H_T * H_S / H_ub) / 2 (EA-KD, arXiv 2311.13621).

    It is large where the teacher is uncertain, and larger where the student is uncertain, too. It
    is not normalised over the batch.

    Args:
        student_logits, teacher_logits: (N, C).
        temperature: softmax temperature of both entropies, not of the distillation loss.
        bound: H_ub in nats; None is log C. The released CIFAR code uses 100 (docs/papers.md).

    Returns:
        (N,) between 0 and log C, detached: it scales a loss, and no gradient flows through it.

    Raises:
        ValueError: C is 1, or `bound` is not positive.
    """
    return combine_entropies(
        entropy(student_logits, temperature=temperature),
        entropy(teacher_logits, temperature=temperature),
        teacher_logits.shape[-1],
        bound,
    )
