"""Distillation losses from which a student learns nothing."""

import logging
from collections import Counter

PATIENCE = 20  # steps for which a loss may stay 0


class ZeroLosses:
    """Warns of a loss that has been 0, or without a gradient, for PATIENCE consecutive steps."""

    def __init__(self):
        self._steps = Counter()

    def update(self, name: str, value: float, *, has_gradient: bool = True) -> None:
        """Record the value of a loss in a step."""
        is_without_effect = value == 0 or not has_gradient
        self._steps[name] = self._steps[name] + 1 if is_without_effect else 0
        if self._steps[name] == PATIENCE:
            cause = "0" if value == 0 else "without a gradient"
            logging.getLogger(__name__).warning(
                f"{name} has been {cause} for {PATIENCE} iterations: the student learns nothing "
                "from it. Are its WEIGHT and options 0, or is the teacher's output saturated?"
            )
