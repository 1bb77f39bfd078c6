"""Logits and feature maps of student and teacher on one batch.

R counts samples (ROIs, anchors, images or tokens) of the batch, B its images, K the classes of a
label, without background. The softmax of a detector has K + 1 classes, the last of them background;
that of a classifier, a sigmoid head and a language model have K.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eakd_det.losses import bernoulli_entropy, entropy


@dataclass
class LogitPair:
    """Logits of student and teacher for the same samples, by one classifier of each.

    A cascade has several pairs, one a stage.

    Attributes:
        student_logits, teacher_logits: (R, K), or (R, K + 1) of a softmax with background.
        labels: (R,) int64 classes; K is background.
        normalizer: divisor of the sum of a loss over the samples; None keeps the (R,) losses.
        sigmoid: whether the logits are a sigmoid's.
        has_background: whether samples may be background.
        suffix: ends the names of the losses of this pair.
        first_boxes: returns the boxes of the first image's samples, for a picture.
        images: returns the (R,) int64 index in the batch of each sample's image; None if samples
            are images (a classifier) or have none (tokens).
        sample_weight: (R,) EA weight of each sample, or None.
        mean_weight: scalar, the mean that a mode of the EA weight needs; set before the weights it
            may be that of more samples.
        background_weight: weight of background samples; None is their own EA weight.
        student_deltas, teacher_deltas: (R, 4) or, class by class, (R, 4 K) box regression of ROIs,
            each in the units of its own box head; None if samples have none.
        target_deltas: returns the (R, 4) regression targets of foreground samples, in the student's
            units; other rows have no meaning.
        delta_scale: (4,) factors from the teacher's units to the student's.
    """

    student_logits: Tensor
    teacher_logits: Tensor
    labels: Tensor
    normalizer: float | None
    sigmoid: bool = False
    has_background: bool = False
    suffix: str = ""
    first_boxes: Callable[[], Tensor] | None = None
    images: Callable[[], Tensor] | None = None
    sample_weight: Tensor | None = None
    mean_weight: Tensor | None = None
    background_weight: float | None = None
    student_deltas: Tensor | None = None
    teacher_deltas: Tensor | None = None
    target_deltas: Callable[[], Tensor] | None = None
    delta_scale: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)

    def entropies(self, temperature: float) -> tuple[Tensor, Tensor]:
        """Return the (R,) entropies of student and teacher in nats.

        Those of a sigmoid head are means over its classes.
        """
        measure = bernoulli_entropy if self.sigmoid else entropy
        with torch.no_grad():
            return (
                measure(self.student_logits, temperature=temperature),
                measure(self.teacher_logits, temperature=temperature),
            )

    @property
    def num_classes(self) -> int:
        """K, which is also the label of background."""
        return self.student_logits.shape[1] - (self.has_background and not self.sigmoid)

    @property
    def is_foreground(self) -> Tensor:
        """(R,) bool."""
        return self.labels < self.num_classes

    @property
    def num_outcomes(self) -> int:
        """Number of outcomes of the distributions; the bound of their entropies is its log."""
        return 2 if self.sigmoid else self.student_logits.shape[1]

    def image_weight(self, num_images: int) -> Tensor | None:
        """Return the (B,) mean EA weight of each image's samples, 0 for an image without any.

        If background has a weight of its own, the mean is that of the foreground samples, and an
        image without any has the weight of background. None without the EA weight.
        """
        weight, background = self.sample_weight, self.background_weight
        if weight is None or self.images is None:
            return None
        counts = torch.ones_like(weight) if background is None else self.is_foreground.to(weight)
        # First the sum of the weights of each image, then its number of samples.
        sums = weight.new_zeros(2, num_images)
        sums.index_add_(1, self.images(), torch.stack([weight * counts, counts]))
        return (sums[0] / sums[1].clamp(min=1)).masked_fill(sums[1] == 0, background or 0.0)


@dataclass
class BoxHeads:
    """Box heads of two R-CNNs on the student's sampled ROIs of a batch.

    Each is a function of FPN maps, finest first, in the levels that the head reads, and returns
    class logits (R, K + 1) and box deltas (R, 4) or (R, 4 K). Gradients pass through both to the
    maps; the teacher's parameters get none.
    """

    student: Callable[[list[Tensor]], tuple[Tensor, Tensor]]
    teacher: Callable[[list[Tensor]], tuple[Tensor, Tensor]]


@dataclass
class DistillationBatch:
    """Logits and feature maps of student and teacher on one batch.

    Attributes:
        logit_pairs: empty if no method compares logits and the EA weight is off.
        student_features, teacher_features: maps (B, channels, H, W), finest level first; empty if
            no method compares features.
        epoch: counted from 1, for what changes with it: the warm-up of a method, a curriculum.
        boxes: returns the ground truth of each image, (boxes, 4) xyxy in pixels; None if images
            have no boxes.
        padded_size: (height, width) of what the compared maps cover, in pixels.
        objectness: the RPN's logits of anchors, (R, 1), a sigmoid's; None if no method compares
            them.
        heads: the box heads; None if no method runs them.
    """

    logit_pairs: list[LogitPair]
    student_features: list[Tensor] = field(default_factory=list)
    teacher_features: list[Tensor] = field(default_factory=list)
    epoch: int = 1
    boxes: Callable[[], list[Tensor]] | None = None
    padded_size: tuple[int, int] = (0, 0)
    objectness: LogitPair | None = None
    heads: BoxHeads | None = None

    @property
    def weighted_pairs(self) -> list[LogitPair]:
        """The pairs whose samples get EA weights."""
        return self.logit_pairs

    def image_weight(self) -> Tensor | None:
        """Return the (B,) EA weight of each image, the mean over the pairs; None without one."""
        per_pair = [pair.image_weight(len(self.student_features[0])) for pair in self.logit_pairs]
        weights = [weight for weight in per_pair if weight is not None]
        return torch.stack(weights).mean(dim=0) if weights else None
