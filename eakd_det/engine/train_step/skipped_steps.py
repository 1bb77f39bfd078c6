"""Steps whose losses or gradient are not finite, and which are left out."""

import logging

import torch
from detectron2.utils.events import get_event_storage
from torch import Tensor

from eakd_det.distillers.entropy_statistics import LOG_PERIOD
from eakd_det.utils.errors import UserError

MOST_IN_A_ROW = 100  # more than float16 leaves out to find its loss scale


@torch.no_grad()
def is_finite(gradients: list[Tensor]) -> Tensor:
    """Whether all are, their squares too, a scalar of their device, which nothing waits for."""
    norms = torch._foreach_norm(gradients)  # the largest values take 20 times as long on a CPU
    return torch.stack([x.float() for x in norms]).isfinite().all()


class LeftOut:
    """Counts the steps that a run leaves out, and tells of them every LOG_PERIOD iterations.

    Attributes:
        number: of them so far, also the metric "left_out_steps".
    """

    def __init__(self, advice: str, *, is_scaled: bool, max_iter: int | None):
        """
        Args:
            advice: what often helps then.
            is_scaled: whether the loss is scaled for float16, which leaves out some.
            max_iter: iterations of the run; None if it is not known.
        """
        self.advice, self.is_scaled, self.max_iter = advice, is_scaled, max_iter
        self.number = self._in_a_row = 0
        self._untold: list[int] = []

    def count(self, iteration: int, is_left_out: bool) -> None:
        """Count an iteration; all come, one after the other.

        Raises:
            UserError: too many in a row are left out.
        """
        self._in_a_row = self._in_a_row + 1 if is_left_out else 0
        if self._in_a_row == MOST_IN_A_ROW:
            raise UserError(
                f"The gradients of {MOST_IN_A_ROW} steps in a row, up to iteration {iteration}, "
                f"were not finite: the student learns nothing. {self.advice}"
            )
        if is_left_out:
            self.number += 1
            self._untold.append(iteration)
        is_told = (iteration + 1) % LOG_PERIOD == 0 or iteration + 1 == self.max_iter
        if self._untold and is_told:
            self._tell()

    def _tell(self) -> None:
        get_event_storage().put_scalar("left_out_steps", self.number, smoothing_hint=False)
        log, advice = logging.getLogger(__name__).warning, self.advice
        if self.is_scaled:
            log = logging.getLogger(__name__).info
            advice = "The scale of float16's loss is halved each time; a few are usual."
        log(
            f"The gradients of {len(self._untold)} of the last {LOG_PERIOD} steps were not finite, "
            f"at iteration {', '.join(map(str, self._untold))}: these steps were left out, "
            f"{self.number} so far. {advice}"
        )
        self._untold.clear()
