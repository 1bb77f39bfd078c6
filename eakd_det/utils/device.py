"""Devices that are present."""

import torch
from detectron2.config import CfgNode


def use_available_device(cfg: CfgNode) -> None:
    """Set MODEL.DEVICE to "cpu" where it says "cuda" and no GPU is there."""
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
