"""Forward and backward passes of single losses for timing."""

from collections.abc import Callable

import torch
from torch import Tensor

from eakd_det.losses import dkd_loss, entropy_weight, multi_level_loss

from .multi_level_terms import one_by_one


def losses_to_time() -> dict[str, Callable[[], object]]:
    """Build DKD and EA-DKD of 1024 ROIs, 81 classes, and MLD of 64 images, 100 classes."""
    torch.manual_seed(0)
    student, teacher = torch.randn(1024, 81, requires_grad=True), 3 * torch.randn(1024, 81)
    labels = torch.randint(81, (1024,))
    students = [torch.randn(64, 100, requires_grad=True) for _ in range(2)]
    teachers = [3 * torch.randn(64, 100) for _ in range(2)]

    def dkd(weight: Tensor | None = None) -> None:
        student.grad = None
        dkd_loss(student, teacher, labels, beta=0.25, temperature=1.0, weight=weight).backward()

    def mld(loss: Callable[..., Tensor]) -> None:
        for x in students:
            x.grad = None
        loss(*students, *teachers).backward()

    return {
        "dkd": dkd,
        "ea_dkd": lambda: dkd(entropy_weight(student, teacher, temperature=4.0)),
        "mld": lambda: mld(multi_level_loss),
        "mld_one_by_one": lambda: mld(one_by_one),
    }
