"""From what student and teacher say of the same batch to losses: the methods and the EA weight.

R counts samples (ROIs or anchors) of the batch, B its images, K foreground classes. A softmax has
K + 1 classes, the last of them background; a sigmoid head has K.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor, distributed, nn

from eakd_det.losses import (
    ReviewFusion,
    bernoulli_entropy,
    bernoulli_kd_loss,
    combine_entropies,
    dkd_loss,
    entropy,
    hcl_loss,
    kd_loss,
    standardize,
)


@dataclass
class Head:
    """What both detectors say of the same samples in one classifier (a cascade has several).

    Attributes:
        student_logits, teacher_logits: (R, K + 1), or (R, K) of a sigmoid.
        labels: (R,) int64 classes; K is background.
        normalizer: what the sum of a loss over the samples is divided by.
        sigmoid: whether the logits are a sigmoid's.
        suffix: ends the names of this head's losses.
        first_boxes: gives the boxes of the first image's samples, for a picture.
        images: (R,) int64 number in the batch of each sample's image; None of a classifier, where
            samples are images.
        weight: (R,) EA weight of each sample, or None.
    """

    student_logits: Tensor
    teacher_logits: Tensor
    labels: Tensor
    normalizer: float
    sigmoid: bool = False
    suffix: str = ""
    first_boxes: Callable[[], Tensor] | None = None
    images: Tensor | None = None
    weight: Tensor | None = None

    @torch.no_grad()
    def entropies(self, temperature: float) -> tuple[Tensor, Tensor]:
        """(R,) entropies of student and teacher in nats; of a sigmoid the mean over its classes."""
        measure = bernoulli_entropy if self.sigmoid else entropy
        return (
            measure(self.student_logits, temperature=temperature),
            measure(self.teacher_logits, temperature=temperature),
        )

    @property
    def background(self) -> int:
        """The label of background."""
        return self.student_logits.shape[1] - (0 if self.sigmoid else 1)

    @property
    def num_outcomes(self) -> int:
        """Number of outcomes that the entropies are about: their bound is its logarithm."""
        return 2 if self.sigmoid else self.student_logits.shape[1]


@dataclass
class Comparison:
    """Student and teacher on one batch.

    Attributes:
        student_features, teacher_features: maps (B, channels, H, W), finest level first.
        heads: what both say of the samples; empty if no loss asks for it.
    """

    student_features: list[Tensor]
    teacher_features: list[Tensor]
    heads: list[Head]

    def image_weight(self) -> Tensor | None:
        """(B,) mean EA weight of each image's samples; 0 for an image without any."""
        weighted = [head for head in self.heads if head.weight is not None]
        if not weighted:
            return None
        per_head = []
        for head in weighted:
            sums = head.weight.new_zeros(2, len(self.student_features[0]))  # of weights; of samples
            values = torch.stack([head.weight, torch.ones_like(head.weight)])
            sums.index_add_(1, head.images, values)
            per_head.append(sums[0] / sums[1].clamp(min=1))
        return torch.stack(per_head).mean(dim=0)


def scalar_defaults(function: Callable, *, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """Keyword-only parameters of `function` with their defaults: its options in a config."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in leave_out
    }


class LogitDistiller:
    """Applies a loss on class logits, `loss(student_logits, teacher_logits[, labels], ...)`.

    Attributes:
        defaults: the options with their defaults: those of the loss, and "standardize", which
            standardises the logits first (LS; the EA weight stays that of the raw logits).
        compares: what of the detectors the method compares.
        sigmoid_loss: the loss for sigmoid heads, or None.
        note_on_one_class: what to tell the user whose data have one foreground class.
        has_ea_form: whether the EA weight may be put on it.
        has_helper: whether modules train with the student for it.
    """

    compares = "logits"
    has_helper = False

    def __init__(
        self,
        loss: Callable[..., Tensor],
        *,
        sigmoid_loss: Callable[..., Tensor] | None = None,
        note_on_one_class: str = "",
        has_ea_form: bool = True,
    ):
        self.loss = loss
        self.has_ea_form = has_ea_form
        self.sigmoid_loss = sigmoid_loss
        self.note_on_one_class = note_on_one_class
        self.takes_labels = "labels" in inspect.signature(loss).parameters
        losses_own = scalar_defaults(loss, leave_out=("weight", "reduction"))
        self.defaults = {**losses_own, "standardize": False}

    def __call__(
        self, comparison: Comparison, *, standardize: bool = False, **options: Any
    ) -> dict[str, Tensor]:
        """Suffix of each head -> scalar loss."""
        return {
            head.suffix: self._sum(head, standardize, options) / head.normalizer
            for head in comparison.heads
        }

    def _sum(self, head: Head, standardized: bool, options: dict[str, Any]) -> Tensor:
        logits = head.student_logits, head.teacher_logits
        if standardized:
            logits = tuple(map(standardize, logits))
        labels = (head.labels,) if self.takes_labels else ()
        loss = self.sigmoid_loss if head.sigmoid else self.loss
        return loss(*logits, *labels, weight=head.weight, reduction="none", **options).sum()


class HelpedDistiller:
    """A method with modules that train with the student and are no part of it: its helper.

    Attributes:
        has_ea_form, has_helper: as those of LogitDistiller.
    """

    has_ea_form = True
    has_helper = True

    def statistics(self, helper: nn.Module) -> dict[str, float]:
        """What to log of the helper, by name."""
        return {}


class ReviewDistiller(HelpedDistiller):
    """ReviewKD on the levels of the FPN; the EA weight is one value an image.

    Attributes:
        defaults: no options.
        compares: what of the detectors the method compares.
    """

    compares = "features"

    def __init__(self):
        self.defaults = {}

    def build_helper(
        self, student_channels: Sequence[int], teacher_channels: Sequence[int]
    ) -> nn.Module:
        """The fusion modules; they train with the student and are no part of it."""
        return ReviewFusion(student_channels, teacher_channels)

    def __call__(self, comparison: Comparison, *, helper: nn.Module) -> dict[str, Tensor]:
        """One scalar loss, without a suffix."""
        shapes = [x.shape[-2:] for x in comparison.teacher_features]
        fused = helper(comparison.student_features, shapes)
        weight = comparison.image_weight()
        return {"": hcl_loss(fused, comparison.teacher_features, weight=weight)}


DISTILLERS: dict[str, LogitDistiller | ReviewDistiller] = {
    "KD": LogitDistiller(kd_loss, sigmoid_loss=bernoulli_kd_loss),
    "DKD": LogitDistiller(
        dkd_loss,
        note_on_one_class="beside the target only one class is left, so that NCKD is 0 and BETA "
        'without effect; DISTILL.METHODS ("KD",) is the same as ALPHA 1',
    ),
    "REVIEWKD": ReviewDistiller(),
}


def _teacher_weight(student_entropy, teacher_entropy, num_outcomes, bound):
    return teacher_entropy


def _matched_weight(student_entropy, teacher_entropy, num_outcomes, bound):
    """The mean over the samples of all processes, each of which must call it."""
    weight = combine_entropies(student_entropy, teacher_entropy, num_outcomes, bound)
    pair = torch.stack([weight.sum(), torch.ones_like(weight).sum()])
    if comm.get_world_size() > 1:
        distributed.all_reduce(pair)
    total, number = pair
    return (total / number.clamp(min=1)).expand_as(weight)


# DISTILL.EA.MODE -> function of (student_entropy, teacher_entropy, num_outcomes, bound), all (R,).
EA_MODES: dict[str, Callable[..., Tensor]] = {
    "full": combine_entropies,  # w_EA
    "teacher": _teacher_weight,  # w_base = H_T
    "matched": _matched_weight,  # the scale of w_EA without its adaptivity: the control
}
