"""Prime-aware adaptive distillation, PAD (Zhang et al., ECCV 2020, arXiv 2008.01458).

The student predicts the variance of its error on the teacher's features, and samples of a large
predicted variance count less than the easy, "prime" ones. N counts samples, D is the teacher's
feature dimension.
"""

from torch import Tensor, nn

from .batch_norm import BatchNorm1d
from .reduction import at_least_float32, reduce_samples


def pad_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    log_variance: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean over D of (teacher - student)^2 / sigma^2 + log sigma^2 (arXiv 2008.01458).

    Up to a constant this is twice the negative log-likelihood, per dimension, of the teacher's
    features under a normal distribution. It can be negative; its minimum is at sigma^2 =
    (teacher - student)^2. The authors' code is not public: the mean instead of a sum is that of
    torchdistill, which attributes it to them.

    Args:
        student_features, teacher_features: (N, D). The teacher's side gets no gradient.
        log_variance: log sigma^2, (N, D), or (N,) for one variance a sample.
        weight: (N,) factor of each sample, or None.
        reduction: "mean" over the N samples, or "none".

    Returns:
        A scalar, or (N,) with "none"; at least float32. No samples give a zero joined to the graph.

    Raises:
        ValueError: the shapes do not fit, `weight` is not (N,), or `reduction` is unknown.
    """
    shape = student_features.shape
    if teacher_features.shape != shape or log_variance.shape not in (shape, shape[:1]):
        raise ValueError(
            f"shapes do not match: student features {tuple(shape)}, teacher features "
            f"{tuple(teacher_features.shape)}, log variances {tuple(log_variance.shape)}"
        )
    log_variance = at_least_float32(log_variance)
    if log_variance.ndim == 1:
        log_variance = log_variance[:, None]
    difference = at_least_float32(teacher_features.detach()) - at_least_float32(student_features)
    loss = difference.square() * (-log_variance).exp() + log_variance
    return reduce_samples(loss.mean(dim=1), weight, reduction)


class PrimeAwareHead(nn.Module):
    """Adapter that maps the student's features to the teacher's width and predicts their variance.

    It trains beside the student. The variance branch, a linear layer with batch norm on the
    student's features, is that of torchdistill. The linear map between unequal widths, which
    torchdistill lacks, is our choice.
    """

    def __init__(self, student_width: int, teacher_width: int):
        super().__init__()
        self.mapping = nn.Identity()
        if student_width != teacher_width:
            self.mapping = nn.Linear(student_width, teacher_width)
        self.log_variance = nn.Sequential(
            nn.Linear(student_width, teacher_width), BatchNorm1d(teacher_width)
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            features: pooled features of the student, (N, student_width).

        Returns:
            The mapped features and log sigma^2, (N, teacher_width) both.
        """
        return self.mapping(features), self.log_variance(features)
