"""Distillation from a stronger teacher, DIST (Huang et al., NeurIPS 2022, arXiv 2205.10536).

N counts samples (images, ROIs or anchors), C the classes. EA-DIST is
`dist_loss(..., weight=entropy_weight(...))`.
"""

import torch
from torch import Tensor

from .reduction import at_least_float32, reduce_samples
from .softmax import log_softmax

EPSILON = 1e-8  # added to the product of the norms, as in the released code


def dist_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """T^2 (beta * inter + gamma * intra) of softmax matrices (arXiv 2205.10536, section 3).

    inter is the mean over the rows of 1 - r, and intra the mean over the columns, where r is the
    correlation of a row (column) of the student's N x C matrix of probabilities with the
    teacher's. The loss of a sample has its own inter term and the batch's intra term.

    Args:
        student_logits, teacher_logits: (N, C). The teacher's side gets no gradient.
        beta, gamma: weights of inter and intra.
        temperature: T.
        weight: (N,) factor of each sample, or None. It weights the inter terms one by one, and
            with "mean" the intra term by its mean.
        reduction: "mean" over the N samples, or "none".

    Returns:
        A scalar, or (N,) with "none"; at least float32. No samples give a zero joined to the graph.
        A single sample has an intra term of 1 without a gradient.

    Raises:
        ValueError: `weight` is not (N,), or `reduction` is unknown.
    """
    student = log_softmax(student_logits, temperature).exp()
    teacher = log_softmax(teacher_logits, temperature, constant=True).exp()
    loss = _relations(student, teacher, beta, gamma) * temperature**2
    return reduce_samples(loss, weight, reduction)


def bernoulli_dist_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """`dist_loss` of a sigmoid classifier: with sigmoids in place of the softmaxes.

    Args, returns, raises: those of `dist_loss`.
    """
    student = (at_least_float32(student_logits) / temperature).sigmoid()
    teacher = (at_least_float32(teacher_logits.detach()) / temperature).sigmoid()
    loss = _relations(student, teacher, beta, gamma) * temperature**2
    return reduce_samples(loss, weight, reduction)


def _relations(student: Tensor, teacher: Tensor, beta: float, gamma: float) -> Tensor:
    """beta * inter + gamma * intra of each sample, (N,), of probabilities (N, C)."""
    inter = 1 - _correlation(student, teacher, dim=1)
    intra = 1 - _correlation(student, teacher, dim=0).mean()
    return beta * inter + gamma * intra


def _correlation(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """Pearson's correlation of a and b along a dimension; 0 where one is constant."""
    a, b = (x - x.mean(dim=dim, keepdim=True) for x in (a, b))
    norms = [torch.linalg.vector_norm(x, dim=dim) for x in (a, b)]
    return (a * b).sum(dim=dim) / (norms[0] * norms[1] + EPSILON)
