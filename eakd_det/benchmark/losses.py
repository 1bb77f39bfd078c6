"""Forward and backward passes of the losses of detectors and classifiers."""

from collections.abc import Callable

import torch
from torch import Tensor

from eakd_det.losses import dkd_loss, entropy_weight, multi_level_loss

from .bench import Bench
from .measure import built
from .multi_level_terms import one_by_one

CALLS = 100  # in a round: they take about a millisecond


def run_losses(bench: Bench) -> dict[str, float]:
    """Measure the losses of `losses_to_time`; seconds by name."""
    return bench.add(
        "losses",
        built(losses_to_time(bench.device)),
        title="losses, forward and backward",
        base="dkd",
        rounds=CALLS * bench.rounds,
        warmup=9,
    )


def losses_to_time(device: torch.device) -> dict[str, Callable[[], object]]:
    """Build DKD and EA-DKD of 1024 ROIs, 81 classes, and MLD of 64 images, 100 classes."""
    torch.manual_seed(0)
    student, teacher, *views = (
        torch.randn(*shape, device=device) for shape in [(1024, 81)] * 2 + [(64, 100)] * 4
    )
    labels = torch.randint(81, (1024,), device=device)
    teacher, teachers = 3 * teacher, [3 * x for x in views[2:]]
    student, *students = (x.requires_grad_() for x in (student, *views[:2]))

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
