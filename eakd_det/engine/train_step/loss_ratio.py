"""Distillation losses beside which those of the task count for little."""

import logging
from statistics import median

FIRST = 20  # steps of a run that are looked at: later a task that is learnt has small losses
MOST = 10.0  # times the task's


class LossRatio:
    """Warns of a method whose losses are far above the task's in the first steps of a run."""

    def __init__(self, methods: tuple[str, ...], most: float = MOST):
        """
        Args:
            methods: how the names of each one's losses begin.
            most: times the task's losses that are usual.
        """
        self.methods, self.most = methods, most
        self._steps: list[dict[str, float]] = []

    def update(self, iteration: int, losses: dict[str, float]) -> None:
        """Take the losses of a step by name; the steps come one after the other."""
        if not self.methods or iteration >= FIRST:
            return
        sums = dict.fromkeys(("", *self.methods), 0.0)  # "" is the task
        for name, value in losses.items():
            sums[next((m for m in self.methods if name.startswith(m)), "")] += float(value)
        self._steps.append(sums)
        if len(self._steps) == FIRST:
            self._warn()

    def _warn(self) -> None:
        task = median(step[""] for step in self._steps)
        for method in self.methods:
            value = median(step[method] for step in self._steps)
            if task and value >= self.most * task:
                logging.getLogger(__name__).warning(
                    f"{method} is {value:.3g} and the task's own losses are {task:.3g}, medians of "
                    f"the first {FIRST} iterations: the student learns little else than to be like "
                    "the teacher. Is the method's WEIGHT meant to be that large?"
                )
