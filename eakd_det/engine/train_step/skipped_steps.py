"""Optimizer steps that are left out because a loss or a gradient is not finite."""

import logging
import math

import torch
from detectron2.utils.events import get_event_storage
from torch import Tensor

from eakd_det.distillers.entropy_statistics import LOG_PERIOD
from eakd_det.utils.errors import UserError

MAX_IN_A_ROW = 100  # more than float16 needs to find its loss scale


@torch.no_grad()
def is_finite(gradients: list[Tensor]) -> Tensor:
    """Return a scalar, on the gradients' device: are all gradients and their squares finite?"""
    norms = torch._foreach_norm(gradients)  # the largest values take 20 times as long on a CPU
    return (torch.stack(norms) < math.inf).all()  # isfinite takes four kernels


class SkippedSteps:
    """Counts the steps that a run leaves out, and logs them every LOG_PERIOD iterations.

    Attributes:
        number: of the steps left out so far, also the metric "left_out_steps".
    """

    def __init__(self, advice: str, *, is_scaled: bool, max_iter: int | None):
        """
        Args:
            advice: a remedy, for the messages.
            is_scaled: the loss is scaled for float16, which leaves out a few steps.
            max_iter: iterations of the run; None if it is not known.
        """
        self.advice, self.is_scaled, self.max_iter = advice, is_scaled, max_iter
        self.number = self._in_a_row = 0
        self._not_logged: list[int] = []

    def update(self, iteration: int, is_skipped: bool) -> None:
        """Record a step; to be called for each step, in their order.

        Raises:
            UserError: MAX_IN_A_ROW consecutive steps are left out.
        """
        self._in_a_row = self._in_a_row + 1 if is_skipped else 0
        if self._in_a_row == MAX_IN_A_ROW:
            raise UserError(
                f"The gradients of {MAX_IN_A_ROW} steps in a row, up to iteration {iteration}, "
                f"were not finite: the student learns nothing. {self.advice}"
            )
        if is_skipped:
            self.number += 1
            self._not_logged.append(iteration)
        is_logged = (iteration + 1) % LOG_PERIOD == 0 or iteration + 1 == self.max_iter
        if self._not_logged and is_logged:
            self._log()

    def _log(self) -> None:
        get_event_storage().put_scalar("left_out_steps", self.number, smoothing_hint=False)
        log, advice = logging.getLogger(__name__).warning, self.advice
        if self.is_scaled:
            log = logging.getLogger(__name__).info
            advice = "The scale of float16's loss is halved each time; a few are usual."
        log(
            f"The gradients of {len(self._not_logged)} of the last {LOG_PERIOD} steps were not "
            f"finite, at iteration {', '.join(map(str, self._not_logged))}: these steps were "
            f"skipped, {self.number} so far. {advice}"
        )
        self._not_logged.clear()
