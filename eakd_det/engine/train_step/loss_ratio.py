"""Distillation losses relative to those of the task."""

import logging
from collections.abc import Iterable
from statistics import median

FIRST_STEPS = 100  # that are compared: later a task that is learnt has small losses
MAX_RATIO = 10.0  # that is usual


# Detectron2's own losses, whose names begin like those of the methods RPN and BOX.
OF_TASK = ("loss_rpn_cls", "loss_rpn_loc", "loss_box_reg")


def loss_names(methods: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the methods' losses, without the stage of a cascade or a part."""
    return tuple(f"loss_{name.lower()}" for name in methods)


def name_of_method(name: str, names: Iterable[str]) -> str:
    """Return the one of `loss_names` that a loss belongs to; "" if it is one of the task's.

    A loss may have a suffix: the stage of a cascade ("loss_dkd_stage0"), or a part of the method
    ("loss_fcfd_kd").
    """
    if name.startswith(OF_TASK):
        return ""
    return next((x for x in names if name == x or name.startswith(f"{x}_")), "")


class LossRatio:
    """Logs how large each method's losses are relative to the task's in the first steps of a run.

    The log line comes after FIRST_STEPS, or at the end of a shorter run. A warning follows for a
    method whose losses are far above the task's.
    """

    def __init__(self, names: Iterable[str], max_ratio: float = MAX_RATIO):
        """
        Args:
            names: those of `loss_names`; other losses are the task's.
            max_ratio: usual ratio of a method's losses to the task's.
        """
        self.names, self.max_ratio = tuple(names), max_ratio
        self._steps: list[dict[str, float]] = []

    def update(self, iteration: int, losses: dict[str, float], *, is_last: bool = False) -> None:
        """Record the losses of a step; to be called for each step, in their order.

        Args:
            iteration: of the run. If the first is not 0, the run is resumed and nothing is logged.
            losses: name -> value.
            is_last: whether the run ends with this step.
        """
        if not self.names or iteration >= FIRST_STEPS:
            return
        sums = dict.fromkeys(("", *self.names), 0.0)  # "" is the task
        for name, value in losses.items():
            sums[name_of_method(name, self.names)] += float(value)
        self._steps.append(sums)
        is_due = is_last or iteration + 1 == FIRST_STEPS
        if is_due and len(self._steps) == iteration + 1:
            self._report()

    def _report(self) -> None:
        medians = {name: median(step[name] for step in self._steps) for name in ("", *self.names)}
        task, logger = medians.pop(""), logging.getLogger(__name__)
        if not task:
            return
        ratios = ", ".join(f"{name} {value / task:.3g}" for name, value in medians.items())
        logger.info(
            f"Losses relative to the task's own, {task:.3g}, as medians of the first "
            f"{len(self._steps)} iterations: {ratios}"
        )
        for name, value in medians.items():
            if value >= self.max_ratio * task:
                logger.warning(
                    f"{name} is {value:.3g} and the task's own losses are {task:.3g}, medians of "
                    f"the first {len(self._steps)} iterations: the student learns almost only to "
                    "imitate the teacher. Is the method's WEIGHT meant to be that large?"
                )
