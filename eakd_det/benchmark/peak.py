"""Peak memory of a detector's training steps on a CPU."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from detectron2.config import CfgNode

from .batches import Size, make_batch
from .steps import build_step
from .timing import peak_memory_mib

STEPS = 3


def measure_peak(cfg: CfgNode, size: Size, *, is_stock: bool = False) -> float:
    """Peak memory (MiB) of a process with three steps."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, cfg, size, is_stock).result()


def _peak(cfg: CfgNode, size: Size, is_stock: bool) -> float:
    batch = make_batch(size, cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    step = build_step(cfg, batch, is_stock=is_stock)
    for _ in range(STEPS):
        step()
    return peak_memory_mib()
