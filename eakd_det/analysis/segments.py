"""Accuracy over tenths of the samples, sorted by entropy (EA-KD, figures 2a, B1a).

N counts samples, S segments.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .samples import Samples

NUM_SEGMENTS = 10
Z = 1.959964  # half width of a 95 % interval of the standard normal distribution

Estimate = tuple[float, float, float]  # a value with the ends of its 95 % interval


@dataclass(frozen=True)
class Segment:
    """Segment of samples with similar entropy.

    Attributes:
        number: number of samples.
        entropy: mean entropy, nats.
        teacher, student: accuracy, percent.
        gap: teacher minus student, percentage points.
    """

    number: int
    entropy: float
    teacher: Estimate
    student: Estimate
    gap: Estimate


def entropy_segments(
    entropy: Tensor, teacher: Samples, student: Samples, num_segments: int = NUM_SEGMENTS
) -> list[Segment]:
    """Compute the accuracies in equal segments of the samples, sorted by entropy.

    Args:
        entropy: (N,) entropies; the sort is stable.
        num_segments: S; the sizes of the segments differ by at most one sample.

    Returns:
        S segments, the lowest entropy first.

    Raises:
        ValueError: there are fewer samples than segments.
    """
    if len(entropy) < num_segments:
        raise ValueError(f"{len(entropy)} samples are too few for {num_segments} segments")
    order = entropy.argsort(stable=True)
    return [
        _segment(entropy[part], teacher.is_correct[part], student.is_correct[part])
        for part in torch.tensor_split(order, num_segments)
    ]


def _segment(entropy: Tensor, teacher: Tensor, student: Tensor) -> Segment:
    number = len(entropy)
    teacher_alone, student_alone = (teacher & ~student).sum(), (student & ~teacher).sum()
    return Segment(
        number,
        entropy.mean().item(),
        _in_percent(proportion(teacher.sum().item(), number)),
        _in_percent(proportion(student.sum().item(), number)),
        _in_percent(paired_difference(teacher_alone.item(), student_alone.item(), number)),
    )


def _in_percent(estimate: Estimate) -> Estimate:
    return tuple(100 * value for value in estimate)


def proportion(hits: int, number: int) -> Estimate:
    """Proportion of hits with Wilson's score interval (JASA 1927), not empty at 0 and 1."""
    share, width = hits / number, Z * Z / number
    centre = (share + width / 2) / (1 + width)
    half = math.sqrt(share * (1 - share) * width + width * width / 4) / (1 + width)
    return share, min(centre - half, share), max(centre + half, share)  # despite rounding


def paired_difference(first_alone: int, second_alone: int, number: int) -> Estimate:
    """Difference of two proportions of the same samples, with Bonett and Price's interval.

    Their adjusted Wald interval (Journal of Educational and Behavioral Statistics 37, 2012) is not
    empty if both always agree.

    Args:
        first_alone, second_alone: number of samples that are hits of the first or second alone.
        number: number of samples.
    """
    first, second = (first_alone + 1) / (number + 2), (second_alone + 1) / (number + 2)
    half = Z * math.sqrt((first + second - (first - second) ** 2) / (number + 2))
    low, high = first - second - half, first - second + half
    return (first_alone - second_alone) / number, max(low, -1.0), min(high, 1.0)
