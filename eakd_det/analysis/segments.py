"""Accuracy over tenths of the samples, from the surest to the least sure (EA-KD, figures 2a, B1a).

N counts samples, S segments.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .samples import Samples

NUM_SEGMENTS = 10
Z = 1.959964  # of a 95 % interval of the normal distribution

Estimate = tuple[float, float, float]  # a value with the ends of its 95 % interval


@dataclass(frozen=True)
class Segment:
    """Samples of like entropy.

    Attributes:
        number: of samples.
        entropy: their mean, nats.
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
    """Accuracies in parts of the samples, in the order of their entropy.

    Args:
        entropy: (N,) by which the samples are put in order; equal ones stay as they were.
        num_segments: S; the parts are equal but for one sample.

    Returns:
        S segments, the lowest entropy first.

    Raises:
        ValueError: there are fewer samples than segments.
    """
    if len(entropy) < num_segments:
        raise ValueError(f"{len(entropy)} samples do not make {num_segments} segments")
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
    """Share of hits with Wilson's score interval (JASA 1927), which 0 and 1 keep a width of."""
    share, width = hits / number, Z * Z / number
    centre = (share + width / 2) / (1 + width)
    half = math.sqrt(share * (1 - share) * width + width * width / 4) / (1 + width)
    return share, min(centre - half, share), max(centre + half, share)  # but for rounding


def paired_difference(first_alone: int, second_alone: int, number: int) -> Estimate:
    """Difference of two shares of the same samples, with Bonett and Price's interval.

    Their adjusted Wald interval (Journal of Educational and Behavioral Statistics 37, 2012) has a
    width also where both always agree.

    Args:
        first_alone, second_alone: hits of one that are none of the other.
        number: of samples.
    """
    first, second = (first_alone + 1) / (number + 2), (second_alone + 1) / (number + 2)
    half = Z * math.sqrt((first + second - (first - second) ** 2) / (number + 2))
    low, high = first - second - half, first - second + half
    return (first_alone - second_alone) / number, max(low, -1.0), min(high, 1.0)
