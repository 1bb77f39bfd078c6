"""Prime-aware adaptive distillation, PAD (Zhang et al., ECCV 2020, arXiv 2008.01458).

Each sample's squared distance is divided by a variance that the student predicts: samples that it
cannot follow count less. N counts samples, D is the teacher's width.
"""

import torch
from torch import Tensor, nn

from .reduction import at_least_float32, reduce_samples


def pad_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    log_variance: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """MSE / sigma^2 + log sigma^2 (arXiv 2008.01458, section 3).

    It is twice the negative log-likelihood of a Gaussian, but for a constant, whose variance each
    sample has of its own.

    No code is public. The mean over the D features in place of their sum, which keeps the two terms
    of one size at any width, is our choice.

    Args:
        student_features: (N, D), mapped to the teacher's width.
        teacher_features: (N, D). They get no gradient.
        log_variance: (N,), log sigma^2; its smallest loss is at the log of the MSE.
        weight: (N,) factor of each sample, or None.
        reduction: "mean" over the N samples, or "none".

    Returns:
        A scalar, or (N,) with "none"; at least float32; below 0 where sigma is small. No samples
        give a zero joined to the graph.

    Raises:
        ValueError: `weight` is not (N,), or `reduction` is unknown.
    """
    student = at_least_float32(student_features)
    distance = (student - at_least_float32(teacher_features.detach())).square().mean(dim=-1)
    log_variance = at_least_float32(log_variance)
    loss = distance * torch.exp(-log_variance) + log_variance
    return reduce_samples(loss, weight, reduction)


class PrimeAwareHead(nn.Module):
    """What trains beside the student: a map to the teacher's width, and the log variance."""

    def __init__(self, in_features: int, out_features: int):
        """
        Args:
            in_features, out_features: widths of the pooled features of student and teacher.
        """
        super().__init__()
        self.mapping = nn.Linear(in_features, out_features)
        self.variance = nn.Linear(in_features, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The mapped features, (N, D), and the log variance, (N,), of pooled features (N, d)."""
        return self.mapping(features), self.variance(features).squeeze(1)
