"""Choice of an available device."""

import torch
from detectron2.config import CfgNode


def use_available_device(cfg: CfgNode) -> None:
    """Set MODEL.DEVICE to "cpu" if it is "cuda" and there is no GPU."""
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
