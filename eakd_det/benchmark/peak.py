"""Peak memory of a detector's training steps."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from detectron2.config import CfgNode

from .detection import Size, build_step, make_batch
from .timing import peak_memory_mib

STEPS = 3


def measure_peak(cfg: CfgNode, variant: str, size: Size) -> float:
    """Peak memory (MiB) of three steps of a variant, in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, cfg, variant, size).result()


def _peak(cfg: CfgNode, variant: str, size: Size) -> float:
    step = build_step(cfg, variant, make_batch(size, cfg.MODEL.ROI_HEADS.NUM_CLASSES))
    for _ in range(STEPS):
        step()
    return peak_memory_mib()
