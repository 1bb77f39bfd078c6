"""Teachers that are worse than their students."""

import logging
from typing import Any

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict


class WeakTeacher(HookBase):
    """Warns when the first evaluation of a student is better than its teacher's.

    Later a student may surpass its teacher because it has learnt well.
    """

    def __init__(self, metric: str, teacher_value: float):
        """
        Args:
            metric: of an evaluation, the higher the better.
            teacher_value: the teacher's value of it.
        """
        self.metric, self.teacher_value, self._is_known = metric, teacher_value, False

    def after_train(self) -> None:
        self.after_step()

    def after_step(self) -> None:
        latest = self.trainer.storage.latest()
        if self._is_known or self.trainer.start_iter or self.metric not in latest:
            return
        self._is_known = True
        value, iteration = latest[self.metric]
        if value > self.teacher_value:
            logging.getLogger(__name__).warning(
                f"The student's first evaluation, at iteration {iteration}, gives {self.metric} "
                f"{value:.2f}, more than its teacher's {self.teacher_value:.2f}. Has the teacher "
                "been trained to the end, and on images and classes like these?"
            )


def weak_teacher(metric: str, results: dict[str, Any]) -> WeakTeacher | None:
    """Build the hook from a teacher's evaluation; None if that lacks the metric.

    Args:
        results: of `evaluate` in the main process; empty in others.
    """
    value = flatten_results_dict(results).get(metric)
    return None if value is None else WeakTeacher(metric, value)
