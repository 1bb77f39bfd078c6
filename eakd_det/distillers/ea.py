"""The EA weight of samples, with the options of DISTILL.EA.

The entropies of R samples are (R,), in nats; `bound` is that of `combine_entropies`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from detectron2.utils import comm
from torch import Tensor, distributed

from eakd_det.losses import combine_entropies

from .batch import LogitPair

NO_EA: dict[str, Any] = {
    "enabled": False,
    "mode": "full",
    "temperature": 1.0,
    "bound": 0.0,
    "background": "weighted",
}

# DISTILL.EA.BACKGROUND -> weight of background samples; None is their own.
BACKGROUND_WEIGHTS: dict[str, float | None] = {"weighted": None, "unweighted": 1.0, "ignored": 0.0}


class EAMode(NamedTuple):
    """A value of DISTILL.EA.MODE.

    Attributes:
        weight: function of (student_entropy, teacher_entropy, num_outcomes, bound) that returns the
            (R,) weights.
        by_mean: function of these weights and their mean over the batch, a scalar, that returns the
            weights in their place, (R,); None if the mean is not needed.
    """

    weight: Callable[[Tensor, Tensor, int, float | None], Tensor]
    by_mean: Callable[[Tensor, Tensor], Tensor] | None = None


def _teacher_weight(
    student_entropy: Tensor, teacher_entropy: Tensor, num_outcomes: int, bound: float | None
) -> Tensor:
    return teacher_entropy


def _matched(weight: Tensor, mean: Tensor) -> Tensor:
    return mean.expand_as(weight)


def _normalized(weight: Tensor, mean: Tensor) -> Tensor:
    """Divide by the mean; if all weights are 0, each becomes 1, as other equal weights do."""
    tiny = torch.finfo(weight.dtype).tiny
    return (weight / mean.clamp(min=tiny)).masked_fill(mean <= tiny, 1.0)


EA_MODES: dict[str, EAMode] = {
    "full": EAMode(combine_entropies),  # w_EA
    "teacher": EAMode(_teacher_weight),  # w_base = H_T
    # The scale of w_EA without its adaptivity: the control; and its adaptivity without its scale.
    "matched": EAMode(combine_entropies, _matched),
    "normalized": EAMode(combine_entropies, _normalized),
}


def weigh_pair(
    pair: LogitPair,
    student_entropy: Tensor,
    teacher_entropy: Tensor,
    *,
    mode: EAMode,
    bound: float | None,
    background_weight: float | None,
) -> None:
    """Set the weights of a pair's samples.

    With a mode that needs the mean, every process must call it, unless the pair has its mean.

    Args:
        background_weight: one of BACKGROUND_WEIGHTS. Unless it is None, the mean is that of the
            foreground samples.
    """
    weight = mode.weight(student_entropy, teacher_entropy, pair.num_outcomes, bound)
    if mode.by_mean is not None:
        if pair.mean_weight is None:
            is_counted = None if background_weight is None else pair.is_foreground
            pair.mean_weight = _mean_of_processes(weight, is_counted)
        weight = mode.by_mean(weight, pair.mean_weight)
    if background_weight is not None:
        weight = weight.masked_fill(~pair.is_foreground, background_weight)
    pair.sample_weight, pair.background_weight = weight, background_weight


def _mean_of_processes(weight: Tensor, is_counted: Tensor | None) -> Tensor:
    """Mean over the samples of all processes that count, by default all; 0 without any."""
    counts = torch.ones_like(weight) if is_counted is None else is_counted.to(weight)
    pair = torch.stack([(weight * counts).sum(), counts.sum()])
    if comm.get_world_size() > 1:
        distributed.all_reduce(pair)
    total, number = pair
    return total / number.clamp(min=1)
