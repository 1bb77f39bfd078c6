"""FCFD for a box head (Liu et al., ICLR 2023, arXiv 2304.11832): bridges between FPNs, and losses.

Maps of student and teacher are lists from the finest level to the coarsest, (N, channels, H, W); N
counts images, R ROIs. There are four ways from maps to class logits and box deltas:

    teacher  the teacher's maps and its box head: the target
    s        the student's maps and its box head
    st       the student's maps, bridged, and the teacher's box head
    ts       the teacher's maps, bridged, and the student's box head
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .batch_norm import BatchNorm
from .kd import kd_loss
from .levels import pair_levels
from .reduction import at_least_float32, reduce_samples

Predictions = tuple[Tensor, Tensor]  # class logits (R, K + 1), box deltas (R, 4) or (R, 4 K)


class HeadBridges(nn.Module):
    """A 3 x 3 convolution with batch norm for each level and direction.

    They train with the student and are no part of it. State-dict keys are those of the released
    code, `bridges.{s2t, t2s}.{level}.{0 convolution, 1 batch norm}`. There are no bridges to the
    student on levels that the box head does not read, which the released code has without using
    them.
    """

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        head_levels: Sequence[int],
    ):
        """
        Args:
            student_channels, teacher_channels: of each level.
            head_levels: indices of the levels that the box heads read.
        """
        super().__init__()
        self.head_levels = tuple(head_levels)
        pairs = list(zip(student_channels, teacher_channels, strict=True))
        to_teacher = {str(i): _bridge(here, there) for i, (here, there) in enumerate(pairs)}
        to_student = {str(i): _bridge(*reversed(pairs[i])) for i in head_levels}
        self.bridges = nn.ModuleDict(
            {"s2t": nn.ModuleDict(to_teacher), "t2s": nn.ModuleDict(to_student)}
        )

    def to_teacher(self, student_features: Sequence[Tensor]) -> list[Tensor]:
        """Convert the student's maps of all levels into maps of the teacher."""
        bridges = self.bridges["s2t"].values()
        return [bridge(x) for bridge, x in zip(bridges, student_features, strict=True)]

    def to_student(self, teacher_features: Sequence[Tensor]) -> list[Tensor]:
        """Convert the teacher's maps of all levels into maps of the student, on `head_levels`."""
        bridges = self.bridges["t2s"]
        return [bridges[str(i)](at_least_float32(teacher_features[i])) for i in self.head_levels]


def _bridge(in_channels: int, out_channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, BatchNorm(out_channels))


def fcfd_heads_loss(
    bridged_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    paths: Sequence[Predictions],
    teacher: Predictions,
    *,
    temperature: float = 1.0,
    app_weight: float = 1.0,
    kd_weight: float = 1.0,
    l2_weight: float = 1.0,
    image_weight: Tensor | None = None,
    weight: Tensor | None = None,
) -> dict[str, Tensor]:
    """Compare bridged maps and the predictions of the paths with the teacher's.

    Args:
        bridged_features: the student's maps of all levels, bridged to the teacher.
        teacher_features, teacher: the targets, which get no gradient.
        paths: predictions of s, st and ts.
        temperature: softmax temperature of the KL.
        app_weight, kd_weight, l2_weight: factors of the three losses.
        image_weight: (N,) factor of each image in "app", or None.
        weight: (R,) factor of each ROI in "kd" and "l2", or None.

    Returns:
        "app", the sum of `appearance_losses` over the levels, and "kd" and "l2", the sums of
        `prediction_losses` over the paths: scalars, at least float32.

    Raises:
        ValueError: maps differ in shape, or a weight is not (N,) or (R,).
    """
    app = appearance_losses(bridged_features, teacher_features, weight=image_weight)
    kd, l2 = prediction_losses(paths, teacher, temperature=temperature, weight=weight)
    return {"app": app_weight * app.sum(), "kd": kd_weight * kd.sum(), "l2": l2_weight * l2.sum()}


def appearance_losses(
    bridged_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    *,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean squared error of each level's maps, (levels,).

    Args:
        bridged_features, teacher_features: maps of equal shapes on each level. The teacher's side
            gets no gradient.
        weight: (N,) factor of each image, or None.

    Returns:
        Means over the images, at least float32.

    Raises:
        ValueError: maps differ in number or shape, or `weight` is not (N,).
    """
    losses = [
        reduce_samples((x - target).square().flatten(1).mean(dim=1), weight, "mean")
        for x, target in pair_levels(bridged_features, teacher_features)
    ]
    return torch.stack(losses)


def prediction_losses(
    paths: Sequence[Predictions],
    teacher: Predictions,
    *,
    temperature: float = 1.0,
    weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compare the predictions of each path with the teacher's.

    Args:
        paths: of s, st and ts.
        teacher: gets no gradient.
        temperature: softmax temperature of the KL.
        weight: (R,) factor of each ROI, or None.

    Returns:
        (paths,): `kd_loss` of the class logits. (paths,): mean squared error of the deltas of all
        classes, over all ROIs. Means over the ROIs, at least float32; no ROI gives zeros joined to
        the graph.

    Raises:
        ValueError: `weight` is not (R,).
    """
    target_logits, target_deltas = teacher[0], at_least_float32(teacher[1].detach())
    kd, l2 = [], []
    for logits, deltas in paths:
        kd.append(kd_loss(logits, target_logits, temperature=temperature, weight=weight))
        error = (at_least_float32(deltas) - target_deltas).square().mean(dim=1)
        l2.append(reduce_samples(error, weight, "mean"))
    return torch.stack(kd), torch.stack(l2)
