"""Modes of the EA weight, DISTILL.EA.MODE.

Each is a function of (student_entropy, teacher_entropy, num_outcomes, bound) that returns the (R,)
weights of R samples. The entropies are (R,), in nats; `bound` is that of `combine_entropies`.
"""

from collections.abc import Callable

import torch
from detectron2.utils import comm
from torch import Tensor, distributed

from eakd_det.losses import combine_entropies


def _teacher_weight(
    student_entropy: Tensor, teacher_entropy: Tensor, num_outcomes: int, bound: float | None
) -> Tensor:
    return teacher_entropy


def _matched_weight(
    student_entropy: Tensor, teacher_entropy: Tensor, num_outcomes: int, bound: float | None
) -> Tensor:
    """Mean of w_EA over the samples of all processes; every process must call it."""
    weight = combine_entropies(student_entropy, teacher_entropy, num_outcomes, bound)
    pair = torch.stack([weight.sum(), torch.ones_like(weight).sum()])
    if comm.get_world_size() > 1:
        distributed.all_reduce(pair)
    total, number = pair
    return (total / number.clamp(min=1)).expand_as(weight)


EA_MODES: dict[str, Callable[[Tensor, Tensor, int, float | None], Tensor]] = {
    "full": combine_entropies,  # w_EA
    "teacher": _teacher_weight,  # w_base = H_T
    "matched": _matched_weight,  # the scale of w_EA without its adaptivity: the control
}
