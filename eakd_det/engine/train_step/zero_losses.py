"""Distillation losses from which a student learns nothing."""

import logging
from collections import Counter

PATIENCE = 20  # steps that a loss may be idle before it is warned about


class IdleLosses:
    """Warns of a loss that has been 0, or without a gradient, for PATIENCE steps on end."""

    def __init__(self):
        self._steps = Counter()

    def update(self, name: str, value: float, *, learns: bool = True) -> None:
        """Take the value of one loss in one step.

        Args:
            learns: whether it has a gradient.
        """
        is_idle = value == 0 or not learns
        self._steps[name] = self._steps[name] + 1 if is_idle else 0
        if self._steps[name] == PATIENCE:
            cause = "0" if value == 0 else "without a gradient"
            logging.getLogger(__name__).warning(
                f"{name} has been {cause} for {PATIENCE} iterations: the student learns nothing "
                "from it. Are its WEIGHT and options 0, or is the teacher's output saturated?"
            )
