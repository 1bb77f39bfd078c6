"""Columns of a table: times, and what the device at hand can be asked for."""

from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm

from .gpu import measure_alone
from .timing import interleave

Step = Callable[[], object]
Builders = dict[str, Callable[[], Step]]
Figures = dict[str, float]  # column -> value; a column that the device does not have is left out


def built(steps: dict[str, Step]) -> Builders:
    """Return builders of steps that need no memory of their own."""
    return {name: lambda step=step: step for name, step in steps.items()}


def measure(
    builders: Builders, rounds: int, *, title: str = "", warmup: int = 1, block: int = 1
) -> dict[str, Figures]:
    """Measure variants of a step: on a GPU each alone first, then all in turn.

    Args:
        builders: name -> function that builds the step.
        rounds, warmup, block: as of `interleave`.
        title: of the progress bars.

    Returns:
        Name -> the columns of `interleave`; on a GPU those of `measure_alone`, on a CPU
        "operations", the number of operators of a step.
    """
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.compiler.reset()  # compiled code of earlier tables may hold memory
    bar = tqdm(builders.items(), desc=f"{title}, each alone", leave=False, disable=not on_gpu)
    alone = {name: measure_alone(build, warmup) if on_gpu else {} for name, build in bar}
    steps = {name: build() for name, build in builders.items()}
    times = interleave(steps, rounds, title=title, warmup=warmup, block=block)
    if not on_gpu:
        alone = {name: {"operations": count_operations(step)} for name, step in steps.items()}
    return {name: {**times[name], **alone[name]} for name in builders}


def count_operations(step: Step) -> int:
    """Return the number of operators that a call of a step dispatches, forward and backward."""
    with _Counter() as counter:
        step()
    return counter.number


class _Counter(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += 1
        return func(*args, **(kwargs or {}))
