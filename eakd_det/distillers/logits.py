"""Distillation methods that compare the logits of each sample."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from eakd_det.losses import standardize as standardize_logits

from .base import Distiller
from .batch import DistillationBatch, LogitPair
from .settings import scalar_defaults


class LogitDistiller(Distiller):
    """Applies a loss on class logits, `loss(student_logits, teacher_logits[, labels], ...)`.

    Attributes:
        loss: with `weight` and `reduction` among its keyword arguments.
        sigmoid_loss: the loss for sigmoid heads, or None.
        note_on_one_class: a note for users whose data have one foreground class.
        is_mean: whether a loss is the mean over the samples, also where the pair's normalizer is
            another number (the foreground anchors of a RetinaNet).
    """

    compares = "logits"

    def __init__(
        self,
        loss: Callable[..., Tensor],
        *,
        sigmoid_loss: Callable[..., Tensor] | None = None,
        note_on_one_class: str = "",
        has_ea_form: bool = True,
        can_standardize: bool = True,
        is_mean: bool = False,
    ):
        """
        Args:
            can_standardize: whether the option "standardize" exists, which standardises the logits
                first (LS); the EA weight stays that of the raw logits.
        """
        self.loss = loss
        self.has_ea_form = has_ea_form
        self.sigmoid_loss = sigmoid_loss
        self.note_on_one_class, self.is_mean = note_on_one_class, is_mean
        self.takes_labels = "labels" in inspect.signature(loss).parameters
        self.defaults = scalar_defaults(loss, leave_out=("weight", "num_tokens", "reduction"))
        if can_standardize:
            self.defaults["standardize"] = False

    def __call__(self, batch: DistillationBatch, **options: Any) -> dict[str, Tensor]:
        """Return the loss of each pair by its suffix: a scalar, or (R,) without a normalizer."""
        losses = {}
        for pair in batch.logit_pairs:
            loss, divisor = self._per_sample(pair, **options), pair.normalizer
            if divisor is not None and self.is_mean:
                divisor = max(len(loss), 1)
            losses[pair.suffix] = loss if divisor is None else loss.sum() / divisor
        return losses

    def _per_sample(self, pair: LogitPair, *, standardize: bool = False, **options: Any) -> Tensor:
        """Return the (R,) weighted losses of the samples."""
        logits = [pair.student_logits, pair.teacher_logits]
        if standardize:
            logits = [standardize_logits(x) for x in logits]
        labels = [pair.labels] if self.takes_labels else []
        loss = self.sigmoid_loss if pair.sigmoid else self.loss
        assert loss is not None, "check_dense_heads refuses methods without a sigmoid loss"
        return loss(*logits, *labels, weight=pair.sample_weight, reduction="none", **options)
