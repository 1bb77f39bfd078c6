"""Pairs of feature maps on the levels of two networks, and the sum of a loss over them.

N counts images.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .reduction import at_least_float32, reduce_samples


def pair_levels(
    student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pair the maps of each level, in at least float32; the teacher's side gets no gradient.

    Raises:
        ValueError: the maps differ in number or shape.
    """
    if len(student_features) != len(teacher_features):
        raise ValueError(
            f"{len(student_features)} levels of the student, {len(teacher_features)} of the teacher"
        )
    pairs = list(zip(student_features, teacher_features, strict=True))
    for student, teacher in pairs:
        if student.shape != teacher.shape:
            raise ValueError(
                f"maps of student and teacher differ: {tuple(student.shape)}, "
                f"{tuple(teacher.shape)}"
            )
    # One level at a time, so that not all of them are in float32 at once.
    for student, teacher in pairs:
        yield at_least_float32(student), at_least_float32(teacher.detach())


def reduce_levels(levels: list[Tensor], weight: Tensor | None) -> Tensor:
    """Add up the (N,) losses of the levels and return the weighted mean over the images."""
    return reduce_samples(torch.stack(levels).sum(dim=0), weight, "mean")
