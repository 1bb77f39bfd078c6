"""Distillation losses that are far above those of the task."""

import logging
from collections.abc import Iterable
from statistics import median

FIRST_STEPS = 20  # that are compared: later a task that is learnt has small losses
MAX_RATIO = 10.0  # that is usual


class LossRatio:
    """Warns of a method whose losses are far above the task's in the first steps of a run."""

    def __init__(self, prefixes: Iterable[str], max_ratio: float = MAX_RATIO):
        """
        Args:
            prefixes: one for each method, with which the names of its losses start.
            max_ratio: usual ratio of a method's losses to the task's.
        """
        self.prefixes, self.max_ratio = tuple(prefixes), max_ratio
        self._steps: list[dict[str, float]] = []

    def update(self, iteration: int, losses: dict[str, float]) -> None:
        """Record the losses of a step by name; to be called for each step, in their order."""
        if not self.prefixes or iteration >= FIRST_STEPS:
            return
        sums = dict.fromkeys(("", *self.prefixes), 0.0)  # "" is the task
        for name, value in losses.items():
            sums[next((m for m in self.prefixes if name.startswith(m)), "")] += float(value)
        self._steps.append(sums)
        if len(self._steps) == FIRST_STEPS:
            self._warn()

    def _warn(self) -> None:
        task = median(step[""] for step in self._steps)
        for method in self.prefixes:
            value = median(step[method] for step in self._steps)
            if task and value >= self.max_ratio * task:
                logging.getLogger(__name__).warning(
                    f"{method} is {value:.3g} and the task's own losses are {task:.3g}, medians of "
                    f"the first {FIRST_STEPS} iterations: the student learns almost only to "
                    "imitate the teacher. Is the method's WEIGHT meant to be that large?"
                )
