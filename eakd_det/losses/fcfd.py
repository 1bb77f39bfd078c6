"""Function-consistent feature distillation, FCFD (Liu et al., ICLR 2023, arXiv 2304.11832).

EA-FCFD: `run_paths`, then `entropy_weight` of the logits of student and teacher, then
`fcfd_loss(..., weight=)`. N counts images.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .fcfd_paths import PathOutputs
from .kd import kd_loss
from .reduction import at_least_float32, reduce_samples


def fcfd_loss(
    outputs: PathOutputs,
    *,
    temperature: float = 4.0,
    feature_weight: float = 5.0,
    mix_weight: float = 1.0,
    weight: Tensor | None = None,
) -> dict[str, Tensor]:
    """Compare maps and logits of the student and the mixed paths with the teacher's.

    Args:
        outputs: result of `run_paths`. The teacher's maps and logits get no gradient.
        temperature: softmax temperature of the KL.
        feature_weight: factor of the feature term; times `feature_rampup` in the first epochs.
        mix_weight: factor of the mixed paths' KL.
        weight: (N,) factor of each image in every term, or None.

    Returns:
        "l2", the sum of `feature_losses`, and "kl", the student's KL plus the mixed paths', each
        with its factor: means over the images, scalars, at least float32. Their sum is the loss,
        to which the caller adds the student's cross-entropy.

    Raises:
        ValueError: maps differ in shape, or `weight` is not (N,).
    """
    student, *mixed = (
        kd_loss(logits, outputs.teacher_logits, temperature=temperature, weight=weight)
        for logits in (outputs.student_logits, *outputs.mixed_logits)
    )
    return {
        "l2": feature_weight * feature_losses(outputs, weight=weight).sum(),
        "kl": student + mix_weight * sum(mixed),
    }


def feature_losses(outputs: PathOutputs, *, weight: Tensor | None = None) -> Tensor:
    """Mean squared error of each stage's maps, (S - 1,); on the last stage also of pooled maps.

    The errors of the student's bridged map and of the mixed paths' maps of a stage are summed.
    """
    losses = []
    last = len(outputs.teacher_maps) - 1
    for k, (maps, target) in enumerate(
        zip(outputs.bridged_maps, outputs.teacher_maps, strict=True)
    ):
        each = [_squared_error(x, target) for x in maps]
        if k == last:
            each += [_squared_error(_pool(x), _pool(target)) for x in maps]
        losses.append(reduce_samples(torch.stack(each).sum(dim=0), weight, "mean"))
    return torch.stack(losses)


def feature_rampup(epoch: float, *, feature_warmup: int = 20) -> float:
    """Factor of `feature_weight` in an epoch, counted from 1.

    It rises linearly to 1 over the first `feature_warmup` epochs; with 0 it is always 1.
    """
    return min(epoch / feature_warmup, 1.0) if feature_warmup else 1.0


def _squared_error(x: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each image, (N,)."""
    if x.shape != target.shape:
        raise ValueError(
            f"maps of student and teacher differ: {tuple(x.shape)}, {tuple(target.shape)}"
        )
    difference = at_least_float32(x) - at_least_float32(target.detach())
    return difference.square().flatten(1).mean(dim=1)


def _pool(x: Tensor) -> Tensor:
    """Pool a map as a network's head does its last one; (N, channels)."""
    return F.relu(at_least_float32(x)).mean(dim=(2, 3))
