"""From what student and teacher say of the same ROIs to a loss: the methods and the EA weight.

R counts ROIs, K foreground classes; the last of the K + 1 classes is background.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .losses import dkd_loss, entropy, entropy_weight, kd_loss


@dataclass(frozen=True)
class View:
    """What one detector computed on a batch.

    Attributes:
        features: FPN level -> (B, channels, H, W).
        logits: (R, K + 1) class logits of the ROIs, background last.
    """

    features: dict[str, Tensor]
    logits: Tensor


def scalar_defaults(function: Callable, *, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """Keyword-only parameters of `function` with their defaults: its options in a config."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in leave_out
    }


class LogitDistiller:
    """Applies a loss on class logits, `loss([student_logits, teacher_logits, labels], ...)`.

    Attributes:
        defaults: the options of the loss with their defaults.
    """

    def __init__(self, loss: Callable[..., Tensor]):
        self.loss = loss
        self.takes_labels = "labels" in inspect.signature(loss).parameters
        self.defaults = scalar_defaults(loss, leave_out=("weight", "reduction"))

    def __call__(
        self, student: View, teacher: View, labels: Tensor, weight: Tensor | None, **options: Any
    ) -> Tensor:
        """Scalar loss; `labels` (R,) are the ROIs' classes, `weight` is (R,) or None."""
        labels = (labels,) if self.takes_labels else ()
        return self.loss(student.logits, teacher.logits, *labels, weight=weight, **options)


DISTILLERS: dict[str, LogitDistiller] = {
    "KD": LogitDistiller(kd_loss),
    "DKD": LogitDistiller(dkd_loss),
}


def _teacher_weight(student_logits, teacher_logits, *, temperature, bound):
    return entropy(teacher_logits.detach(), temperature=temperature)


def _matched_weight(student_logits, teacher_logits, *, temperature, bound):
    weight = entropy_weight(student_logits, teacher_logits, temperature=temperature, bound=bound)
    return weight.mean().expand_as(weight)


# DISTILL.EA.MODE -> function of (student_logits, teacher_logits, temperature, bound) giving (R,).
EA_MODES: dict[str, Callable[..., Tensor]] = {
    "full": entropy_weight,  # w_EA
    "teacher": _teacher_weight,  # w_base = H_T
    "matched": _matched_weight,  # the scale of w_EA without its adaptivity: the control
}
