"""The calls of a step that take most of the host's time."""

import cProfile
import pstats
from typing import Any

from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile

from .measure import Step

NUMBER = 10  # of calls that are listed
STEPS = 2


def dearest_calls(step: Step) -> dict[str, list[tuple[str, float, float]]]:
    """Profile a step after a warm-up call.

    Returns:
        "operators", torch's and calls of CUDA, and "functions", Python's in the main thread, each
        with the NUMBER of entries that take the most time themselves: name, calls and milliseconds
        in one step. Both profilers slow the step down.
    """
    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(STEPS):
            step()
    averages = sorted(profiler.key_averages(), key=lambda e: -e.self_cpu_time_total)
    operators = [(e.key, e.count, e.self_cpu_time_total / 1e3) for e in averages]
    tracer = cProfile.Profile()
    with tracer:
        for _ in range(STEPS):
            step()
    functions = [
        (_place(*where), calls, 1e3 * seconds)
        for where, (_, calls, seconds, *_) in pstats.Stats(tracer).stats.items()
    ]
    functions.sort(key=lambda f: -f[2])
    return {
        kind: [(name, calls / STEPS, ms / STEPS) for name, calls, ms in found[:NUMBER]]
        for kind, found in (("operators", operators), ("functions", functions))
    }


def _place(file: str, line: int, name: str) -> str:
    """Return a function's name, with its file and line unless it is built in ("~")."""
    if file == "~":
        return name
    return f"{name} ({file.rpartition('site-packages/')[2]}:{line})"


def table_of_calls(title: str, calls: dict[str, list[tuple[Any, ...]]]) -> str:
    """Format what `dearest_calls` returns."""
    tables = [
        tabulate(rows, [f"{title}, {kind}", "calls", "ms of the host"], floatfmt=("", ".1f", ".2f"))
        for kind, rows in calls.items()
    ]
    return "".join(f"{table}\n\n" for table in tables)
