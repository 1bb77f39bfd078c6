"""Estimate of the time of a training."""

import logging
import math

from detectron2.engine import HookBase

STEPS = 20  # measured


class TimeEstimate(HookBase):
    """Logs the time of the whole training once, after STEPS steps.

    It reads the durations that Detectron2's IterationTimer writes, which leaves out the first
    steps, and waits for no device.
    """

    def __init__(self, eval_period: int):
        """
        Args:
            eval_period: iterations between two evaluations; 0 for none.
        """
        self.eval_period = eval_period

    def after_step(self) -> None:
        start, done, end = self.trainer.start_iter, self.trainer.iter + 1, self.trainer.max_iter
        if done - start != STEPS or done == end:
            return
        seconds = self.trainer.storage.history("time").median(STEPS)
        text = (
            f"about {_format((end - start) * seconds)} for {end - start} steps of {seconds:.3g} s"
        )
        text += f", of which {_format((end - done) * seconds)} are left"
        if self.eval_period:
            evaluations = math.ceil(end / self.eval_period) - done // self.eval_period
            text += f", and {evaluations} evaluation{'s' * (evaluations > 1)}"
        logging.getLogger(__name__).info(f"Time of the training: {text}.")


def _format(seconds: float) -> str:
    """Return "45 s", "12 min" or "7 h 30 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
