"""Training steps of a classifier for the benchmark: EA-KD of CIFAR's resnet8x4 from resnet32x4."""

import os
from typing import Any

import torch
from torch import Tensor

from eakd_det.benchmark.bench import Bench
from eakd_det.benchmark.measure import Builders
from eakd_det.benchmark.steps import TrainerStep

from .config import classification_config
from .engine import ClassifierTrainer
from .models import build_classifier
from .sources import DATASETS, Source

TEACHER, STUDENT = "resnet32x4", "resnet8x4"
NUM_CLASSES, IMAGE_SIZE, NUM_IMAGES = 100, 32, 2048
SIZES = (64, 512)  # images per step; the second on a GPU alone
RANDOM_IMAGES = "random_images"

# Variant -> its config keys; the teacher is fast where they say so.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"SOLVER.FUSED": False},
    "fused": {},
    "fast_teacher": {"TEACHER.FAST": True},
    "channels_last": {"MODEL.CHANNELS_LAST": True},
    "levers": {"TEACHER.FAST": True, "MODEL.CHANNELS_LAST": True},
    "bf16_teacher": {
        "TEACHER.FAST": True,
        "MODEL.CHANNELS_LAST": True,
        "TEACHER.PRECISION": "bfloat16",
    },
}
GPU_VARIANTS: dict[str, dict[str, Any]] = {
    "cuda_graphs": {**VARIANTS["levers"], "SOLVER.CUDA_GRAPHS": True},
}


def run_classification(bench: Bench) -> dict[str, Any]:
    """Measure the variants for each of SIZES; seconds by name, of the second in "images_512"."""
    results = {}
    for size in SIZES[: 1 + bench.on_gpu]:
        results[size] = bench.steps(
            f"classification_{size}",
            step_builders(bench.folder, bench.device.type, size),
            title=f"{TEACHER} -> {STUDENT}, {size} images",
            base="plain",
            rounds=2 * bench.rounds,
        )
    first, *others = results.items()
    return {**first[1], **{f"images_{size}": seconds for size, seconds in others}}


def step_builders(folder: str, device: str, batch_size: int) -> Builders:
    """Return variant -> function that builds the step of ClassifierTrainer.

    All start with the same random weights, and read the same random images, with augmentation.

    Args:
        folder: for the teacher's weights.
    """
    DATASETS.setdefault(RANDOM_IMAGES, _source())
    path = os.path.join(folder, "classifier_teacher.pth")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save({"model": build_classifier(TEACHER, NUM_CLASSES).state_dict()}, path)
    common = {
        "DATASET.NAME": RANDOM_IMAGES,
        "DISTILL.EA.ENABLED": True,
        "DISTILL.METHODS": ("KD",),
        "MODEL.DEVICE": device,
        "MODEL.NAME": STUDENT,
        "OUTPUT_DIR": folder,
        "SOLVER.BATCH_SIZE": batch_size,
        "TEACHER.FAST": False,
        "TEACHER.NAME": TEACHER,
        "TEACHER.WEIGHTS": path,
    }
    variants = VARIANTS | (GPU_VARIANTS if torch.device(device).type == "cuda" else {})
    return {
        name: lambda options=options: _build_step({**common, **options})
        for name, options in variants.items()
    }


def _build_step(options: dict[str, Any]) -> TrainerStep:
    cfg = classification_config()
    cfg.merge_from_list([part for pair in options.items() for part in pair])
    step = TrainerStep(ClassifierTrainer(cfg), cudnn_benchmark=cfg.CUDNN_BENCHMARK)
    while cfg.SOLVER.CUDA_GRAPHS and step.trainer.distilled.objective.agreement.is_open:
        step()  # without a graph
    return step


def _source() -> Source:
    """Return a set of random images of CIFAR's size."""

    def read(root: str, is_train: bool) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(int(is_train))
        shape = (NUM_IMAGES, 3, IMAGE_SIZE, IMAGE_SIZE)
        images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
        return images, torch.randint(NUM_CLASSES, (NUM_IMAGES,), generator=generator)

    half = (0.5,) * 3
    return Source(read, NUM_CLASSES, mean=half, std=half, image_size=IMAGE_SIZE)
