"""Random images, random weights and configs of a detector's benchmark."""

import os
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch import nn

from eakd_det.config.merge import load_config
from eakd_det.modeling.teacher.build import teacher_config
from eakd_det.utils.device import use_available_device

OBJECTS = 8  # per image

# A learning rate of 0 leaves the weights as they are and takes the usual time. No data are read,
# and a step of every variant is one batch.
FIXED = {
    "SOLVER.BASE_LR": 0.0,
    "SOLVER.ACCUMULATE": 1,
    "DATASETS.TRAIN": (),
    "DATASETS.TEST": (),
}


@dataclass
class Size:
    """Size of a batch: number of images, and their height and width in pixels."""

    images: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.images} x {self.height} x {self.width}"


def make_batch(size: Size, num_classes: int) -> list[dict[str, Any]]:
    """Return images of noise with a few boxes, the same at each call, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    extent = torch.tensor([size.width, size.height])
    batch = []
    for _ in range(size.images):
        image = torch.randint(
            256, (3, size.height, size.width), dtype=torch.uint8, generator=generator
        )
        corners = torch.rand(OBJECTS, 2, generator=generator) * extent * 0.6
        sides = (0.1 + 0.3 * torch.rand(OBJECTS, 2, generator=generator)) * extent
        instances = Instances((size.height, size.width))
        instances.gt_boxes = Boxes(torch.cat([corners, corners + sides], dim=1))
        instances.gt_classes = torch.randint(num_classes, (OBJECTS,), generator=generator)
        batch.append({"image": image, "instances": instances})
    return batch


def benchmark_config(path: str, options: list[str], folder: str) -> CfgNode:
    """Load a config for the device at hand, with a random teacher whose weights go to `folder`."""
    cfg = with_options(load_config(path, options), FIXED)
    use_available_device(cfg)
    save_random_teacher(cfg, folder)
    return cfg


def save_random_teacher(cfg: CfgNode, folder: str) -> None:
    """Save random weights that keep a deep network finite, and set TEACHER.WEIGHTS to them."""
    model = build_model(teacher_config(with_options(cfg, {"TEACHER.WEIGHTS": "random"})))
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.5)
    path = os.path.join(folder, "teacher.pth")
    torch.save({"model": model.state_dict()}, path)
    cfg.TEACHER.WEIGHTS = path


def with_options(cfg: CfgNode, options: dict[str, Any]) -> CfgNode:
    """Copy a config with other values of some keys."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list([x for pair in options.items() for x in pair])
    return cfg
