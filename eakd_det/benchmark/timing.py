"""Timing of variants in turn in one process, so that load on the machine affects all alike."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from tqdm import tqdm

from eakd_det.engine.run_record import processor


def interleave(
    variants: dict[str, Callable[[], object]],
    rounds: int,
    *,
    title: str = "",
    warmup: int = 1,
    block: int = 1,
) -> dict[str, dict[str, float]]:
    """Time variants in turn, A B C, A B C, ..., and return the median of each.

    Args:
        variants: name -> function to time.
        rounds: timed blocks of each variant; a GPU is synchronized after a block.
        title: of the progress bar.
        warmup: calls of each before them, which allocate and prepare.
        block: consecutive calls of a variant, so that work that a step leaves to the next one, and
            a GPU that runs behind the host, count as in a training.

    Returns:
        Name -> "seconds" of a call; on a GPU also "host_seconds", until a call returns.
    """
    on_gpu = torch.cuda.is_available()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    turns = [(name, calls) for calls in [*[1] * warmup, *[block] * rounds] for name in variants]
    for i, (name, calls) in enumerate(tqdm(turns, desc=title, leave=False)):
        _synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            variants[name]()
        host = time.perf_counter() - start
        _synchronize()
        if i >= warmup * len(variants):
            times[name].append(((time.perf_counter() - start) / block, host / block))
    return {
        name: {
            "seconds": statistics.median(wall for wall, _ in pairs),
            **({"host_seconds": statistics.median(host for _, host in pairs)} if on_gpu else {}),
        }
        for name, pairs in times.items()
    }


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory_mib() -> float:
    """Return the peak memory of this process on the CPU in MiB."""
    path = "/proc/self/status"  # on Linux, getrusage may return a parent process's peak
    if os.path.exists(path):
        with open(path) as f:
            (kib,) = (line.split()[1] for line in f if line.startswith("VmHWM:"))
        return int(kib) / 2**10
    import resource  # which Windows lacks

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def gemm_peak(device: torch.device, size: int = 2048, rounds: int = 10) -> float:
    """Return the floating-point operations per second of the fastest of several float32 matmuls."""
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
    """Return hardware, software and load, on which timings depend."""
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
