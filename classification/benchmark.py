"""Training steps of a classifier for timing: EA-KD of CIFAR's resnet8x4 from resnet32x4."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from detectron2.utils.events import EventStorage

from eakd_det.utils.precision import Precision

from .config import classification_config
from .distilled import DistilledClassifier
from .engine import build_optimizer
from .models import build_classifier
from .teacher import ClassifierTeacher

TEACHER, STUDENT = "resnet32x4", "resnet8x4"
NUM_CLASSES, IMAGE_SIZE = 100, 32

# Variant -> its config keys; options that it does not name are off.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fast_teacher": {"TEACHER.FAST": True},
    "channels_last": {"MODEL.CHANNELS_LAST": True},
    "levers": {"TEACHER.FAST": True, "MODEL.CHANNELS_LAST": True},
    "bf16_teacher": {
        "TEACHER.FAST": True,
        "MODEL.CHANNELS_LAST": True,
        "TEACHER.PRECISION": "bfloat16",
    },
}


def build_steps(device: str = "cpu", batch_size: int = 64) -> dict[str, Callable[[], None]]:
    """Build a training step of each variant: both forward passes, the loss, backward and SGD.

    All start with the same random weights and take the same batch of random images. A first step
    prepares the teachers here. On a GPU a call returns before the step is done.

    Returns:
        Variant -> function that runs a step.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
    labels = torch.randint(NUM_CLASSES, (batch_size,), generator=generator)
    batch = {"views": [images.to(device)], "labels": labels.to(device), "scale": 1.0}
    steps = {name: _build_step(levers, batch, device) for name, levers in VARIANTS.items()}
    for step in steps.values():
        step()
    return steps


def _build_step(levers: dict[str, Any], batch: dict[str, Any], device: str) -> Callable[[], None]:
    cfg = classification_config()
    cfg.TEACHER.FAST = False
    cfg.merge_from_list([part for pair in levers.items() for part in pair])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        teacher, student = (build_classifier(name, NUM_CLASSES) for name in (TEACHER, STUDENT))
    precision = Precision(cfg.TEACHER.PRECISION, cfg.SOLVER.AMP.DTYPE)
    distilled = DistilledClassifier(
        student,
        ClassifierTeacher(teacher, fast=cfg.TEACHER.FAST, precision=precision),
        methods={"KD": {"weight": 1.0, "warmup": 0.0}},
        ea={"enabled": True, "mode": "full", "temperature": 3.0, "bound": 0.0},
        channels_last=cfg.MODEL.CHANNELS_LAST,
    )
    distilled.to(device).train()
    return partial(_step, distilled, build_optimizer(cfg, distilled), batch)


def _step(
    model: DistilledClassifier, optimizer: torch.optim.Optimizer, batch: dict[str, Any]
) -> None:
    optimizer.zero_grad()
    with EventStorage():  # at iteration 0, which is not logged
        losses = model(batch)
    sum(losses.values()).backward()
    optimizer.step()
