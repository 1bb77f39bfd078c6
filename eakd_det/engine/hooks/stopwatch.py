"""Duration of a run's training."""

import time
from typing import Any

from detectron2.engine import HookBase


class Stopwatch(HookBase):
    """Counts the seconds of training over all starts of a run, evaluations excluded.

    The name of the class is the key of its state in checkpoints.
    """

    def __init__(self):
        self.seconds = 0.0

    def before_step(self) -> None:
        self._start = time.perf_counter()

    def after_step(self) -> None:
        self.seconds += time.perf_counter() - self._start

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds = state["seconds"]
