"""Pearson distillation, PKD (Cao et al., NeurIPS 2022, arXiv 2207.02039).

Feature maps are lists from the finest level to the coarsest; N counts images.
"""

from collections.abc import Sequence

from torch import Tensor

from .levels import pair_levels, reduce_levels

EPSILON = 1e-6  # added to the standard deviation


def pkd_loss(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    *,
    weight: Tensor | None = None,
) -> Tensor:
    """Half the mean squared error of normalised maps (arXiv 2207.02039, equation 3).

    Each channel is normalised by its mean and its standard deviation over the images and positions
    of the batch, through which gradients pass; apart from EPSILON this is 1 - Pearson's correlation
    of the channels. The levels are added.

    Args:
        student_features, teacher_features: maps (N, channels, H, W), of equal shapes on each level.
            The teacher's side gets no gradient.
        weight: (N,) factor of the error of each image, or None. The statistics have no weights.

    Returns:
        The mean over the images, a scalar; at least float32. No image gives a zero joined to the
        graph, and so does a level with one value a channel (one image, a 1 x 1 map), which has no
        deviation.

    Raises:
        ValueError: the maps differ in number or shape, or `weight` is not (N,).
    """
    pairs = pair_levels(student_features, teacher_features)
    return reduce_levels([_pkd_of_level(*pair) for pair in pairs], weight)


def normalize_channels(features: Tensor) -> Tensor:
    """Take away a channel's mean and divide by its deviation, over images and positions."""
    deviation = features.std(dim=(0, 2, 3), keepdim=True)  # divided by N * H * W - 1
    return (features - features.mean(dim=(0, 2, 3), keepdim=True)) / (deviation + EPSILON)


def _pkd_of_level(student: Tensor, teacher: Tensor) -> Tensor:
    """PKD of each image on one level, (N,), with the statistics of the batch."""
    if student.numel() <= student.shape[1]:
        return 0 * student.sum(dim=(1, 2, 3))
    difference = normalize_channels(student) - normalize_channels(teacher)
    return difference.square().mean(dim=(1, 2, 3)) / 2
