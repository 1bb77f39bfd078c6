"""Variants timed in turn in one process, so that all of them meet the same noise."""

import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from tqdm import tqdm

from eakd_det.engine.run_record import processor


def interleave(
    variants: dict[str, Callable[[], object]], rounds: int, *, title: str = "", warmup: int = 1
) -> dict[str, float]:
    """Call the variants A B C, A B C, ... and take each one's median.

    Args:
        variants: name -> what is timed, on a GPU until the device has finished.
        rounds: timed calls of each.
        warmup: calls before them, which allocate and prepare.

    Returns:
        Name -> seconds.
    """
    times = {name: [] for name in variants}
    calls = [name for _ in range(warmup + rounds) for name in variants]
    for i, name in enumerate(tqdm(calls, desc=title, leave=False)):
        _synchronize()
        start = time.perf_counter()
        variants[name]()
        _synchronize()
        if i >= warmup * len(variants):
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory_mib() -> float:
    """The most memory that this process has held: of the GPU, or where there is none its own."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    path = "/proc/self/status"  # what getrusage says on Linux may be a parent process's
    if os.path.exists(path):
        with open(path) as f:
            (kib,) = (line.split()[1] for line in f if line.startswith("VmHWM:"))
        return int(kib) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def gemm_peak(device: torch.device, size: int = 2048, rounds: int = 10) -> float:
    """Floating-point operations a second of the best of several products of float32 matrices."""
    a, b = torch.randn(2, size, size, device=device)
    best = float("inf")
    for _ in range(rounds):
        _synchronize()
        start = time.perf_counter()
        a @ b
        _synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    on_gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if on_gpu else processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "load_average": list(os.getloadavg()),
    }
