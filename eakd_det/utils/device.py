"""Choice of an available device."""

import functools
import logging
import os

import torch
from detectron2.config import CfgNode

from .nvidia import find_gpu, obstacle, torch_build

logger = logging.getLogger(__name__)


def use_available_device(cfg: CfgNode) -> None:
    """Set MODEL.DEVICE to `available_device` of it; the config may be frozen."""
    device = available_device(cfg.MODEL.DEVICE)
    if device != cfg.MODEL.DEVICE:
        is_frozen = cfg.is_frozen()
        cfg.defrost()
        cfg.MODEL.DEVICE = device
        if is_frozen:
            cfg.freeze()


def available_device(device: str = "cuda") -> str:
    """Return "cpu" in place of "cuda" if torch can use no GPU, which the log then says."""
    if not device.startswith("cuda") or torch.cuda.is_available():
        return device
    log_cpu()
    return "cpu"


@functools.cache
def log_cpu() -> None:
    """Log that the process runs on the CPU, and why: once, until `log_cpu.cache_clear`."""
    level, why = _reason()
    # A process that does not show information shows warnings.
    level = level if logger.isEnabledFor(level) else logging.WARNING
    logger.log(level, "Running on the CPU: %s", why)


def _reason() -> tuple[int, str]:
    """Return a level for the log, and why torch can use no GPU."""
    gpu, build = find_gpu(), torch_build()
    if gpu is None or build is None:
        return logging.INFO, "no GPU that torch can use was found"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1"):
        return logging.INFO, f"CUDA_VISIBLE_DEVICES is {visible!r}"
    found = obstacle(gpu, build)
    if found:
        return logging.WARNING, found
    setting = "" if visible is None else f" and CUDA_VISIBLE_DEVICES={visible}"
    return logging.WARNING, (
        f"torch {build.version} cannot use {gpu}{setting}; "
        'python -c "import torch; torch.zeros(1).cuda()" gives the reason'
    )
