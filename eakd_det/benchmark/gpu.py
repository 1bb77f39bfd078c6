"""Memory and activity of a GPU while one step runs."""

import gc
import time
from collections.abc import Callable, Iterable

import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

MIB = 2**20
PROFILED = 2  # calls
LAUNCHES = ("LaunchKernel", "GraphLaunch")  # in the names of the host's calls, of both CUDA APIs
COPIES = ("Memcpy", "Memset")  # device events that are no kernels


def measure_alone(build: Callable[[], Callable[[], object]], warmup: int = 1) -> dict[str, float]:
    """Measure a step while no other step holds memory of the GPU.

    Args:
        build: builds the step.
        warmup: calls that allocate and prepare; their peak counts.

    Returns:
        "allocated_mib" and "reserved_mib", peaks of the caching allocator; "above_mib", the first
        above what the built step holds; and those of `activity`.
    """
    gc.collect()
    torch.cuda.empty_cache()
    step = build()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for _ in range(warmup + PROFILED):
        step()
    torch.cuda.synchronize()
    figures = {
        "allocated_mib": torch.cuda.max_memory_allocated() / MIB,
        "reserved_mib": torch.cuda.max_memory_reserved() / MIB,
        "above_mib": (torch.cuda.max_memory_allocated() - before) / MIB,
    }
    recording = Recording()
    for _ in range(PROFILED):
        step()
    return {**figures, **recording.stop(PROFILED)}


class Recording:
    """A recording of the GPU's activity, without the CPU's operators, which would slow it down."""

    def __init__(self):
        self._profiler = profile(activities=[ProfilerActivity.CUDA])
        torch.cuda.synchronize()
        self._profiler.start()
        self._start = time.perf_counter()

    def stop(self, calls: int) -> dict[str, float]:
        """Return the `activity` of the calls of a step since the start."""
        torch.cuda.synchronize()
        seconds = time.perf_counter() - self._start
        self._profiler.stop()
        return activity(self._profiler.events(), seconds, calls)


def activity(events: Iterable[FunctionEvent], seconds: float, calls: int) -> dict[str, float]:
    """Summarise the events of torch.profiler.

    Args:
        events: of the GPU, and the host's calls of CUDA.
        seconds: time in which they were recorded.
        calls: of a step in that time.

    Returns:
        "busy", share of the time in which a kernel runs in any stream; "launches" of a step, by
        the host: a CUDA graph is one; "kernels" of a step.
    """
    events = list(events)
    kernels = [
        e for e in events if e.device_type == DeviceType.CUDA and not e.name.startswith(COPIES)
    ]
    launches = [
        e
        for e in events
        if e.device_type == DeviceType.CPU and any(name in e.name for name in LAUNCHES)
    ]
    intervals = [(e.time_range.start, e.time_range.end) for e in kernels]
    return {
        "busy": union_length(intervals) / 1e6 / seconds,  # from microseconds
        "launches": len(launches) / calls,
        "kernels": len(kernels) / calls,
    }


def union_length(intervals: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of intervals, which may overlap."""
    total, end = 0.0, float("-inf")
    for first, last in sorted(intervals):
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total
