"""A teacher that knows less than its student."""

import logging
from typing import Any

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict


class WeakTeacher(HookBase):
    """Warns where the first evaluation of a student is better than its teacher's.

    A student that surpasses its teacher later on may have learnt well. The hook comes after the
    one that evaluates.
    """

    def __init__(self, metric: str, of_teacher: float):
        """
        Args:
            metric: of an evaluation, the higher the better.
            of_teacher: its value.
        """
        self.metric, self.of_teacher, self._is_known = metric, of_teacher, False

    def after_step(self) -> None:
        self._compare()

    def after_train(self) -> None:
        self._compare()

    def _compare(self) -> None:
        latest = self.trainer.storage.latest()
        if self._is_known or self.trainer.start_iter or self.metric not in latest:
            return
        self._is_known = True
        value, iteration = latest[self.metric]
        if value > self.of_teacher:
            logging.getLogger(__name__).warning(
                f"The student's first evaluation, at iteration {iteration}, gives {self.metric} "
                f"{value:.2f}, more than its teacher's {self.of_teacher:.2f}. Has the teacher been "
                "trained to the end, on such images and these classes?"
            )


def weak_teacher(metric: str, results: dict[str, Any]) -> WeakTeacher | None:
    """The hook for a teacher's evaluation; None where that has no such metric.

    Args:
        results: as `evaluate` gives them, in the main process; empty in others.
    """
    of_teacher = flatten_results_dict(results).get(metric)
    return None if of_teacher is None else WeakTeacher(metric, of_teacher)
