"""Distillation methods of R-CNNs: box regression, RPN objectness, and FCFD for the box head."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eakd_det.losses import (
    HeadBridges,
    bernoulli_kd_loss,
    bounded_box_loss,
    fcfd_heads_loss,
)
from eakd_det.losses.reduction import at_least_float32

from .base import Distiller
from .batch import DistillationBatch, LogitPair
from .settings import scalar_defaults

NOT_OPTIONS = ("weight", "reduction")


class BoxDistiller(Distiller):
    """Box regression towards the teacher's deltas, on the foreground ROIs of each stage.

    The sum over them is divided as Detectron2's own box loss is: by the number of all sampled ROIs.
    """

    compares = "boxes"

    def __init__(self):
        self.defaults = scalar_defaults(bounded_box_loss, leave_out=NOT_OPTIONS)

    def __call__(self, batch: DistillationBatch, **options: Any) -> dict[str, Tensor]:
        """Return one scalar loss for each pair, by its suffix."""
        return {pair.suffix: _box_loss(pair, **options) for pair in batch.logit_pairs}


def _box_loss(pair: LogitPair, **options: Any) -> Tensor:
    assert pair.target_deltas is not None and pair.normalizer is not None, "R-CNNs have them"
    student, teacher = (deltas_of_labels(deltas, pair.labels) for deltas in _deltas(pair))
    # Column by column: a tensor of the factors would be copied to the device, which waits for it.
    scaled = [
        x * s for x, s in zip(at_least_float32(teacher).unbind(1), pair.delta_scale, strict=True)
    ]
    weight = (pair.labels < pair.num_classes).to(at_least_float32(student).dtype)
    if pair.sample_weight is not None:
        weight = weight * pair.sample_weight
    deltas = student, torch.stack(scaled, dim=1), pair.target_deltas()
    loss = bounded_box_loss(*deltas, weight=weight, reduction="none", **options)
    return loss.sum() / pair.normalizer


def _deltas(pair: LogitPair) -> tuple[Tensor, Tensor]:
    """Return the deltas of student and teacher."""
    student, teacher = pair.student_deltas, pair.teacher_deltas
    assert student is not None and teacher is not None, "R-CNNs have them"
    return student, teacher


def deltas_of_labels(deltas: Tensor, labels: Tensor) -> Tensor:
    """Return the (R, 4) deltas of each ROI's labelled class; of background those of some class.

    Args:
        deltas: (R, 4 K), or (R, 4) for all classes.
        labels: (R,); K is background.
    """
    by_class = deltas.unflatten(1, (-1, 4))
    index = labels.clamp(max=by_class.shape[1] - 1)
    return by_class.gather(1, index.view(-1, 1, 1).expand(-1, 1, 4)).squeeze(1)


class ObjectnessDistiller(Distiller):
    """KL of the RPN's objectness, on the anchors that the student's RPN has sampled.

    The EA weight is that of each anchor, from its own entropies.
    """

    compares = "objectness"

    def __init__(self):
        self.defaults = scalar_defaults(bernoulli_kd_loss, leave_out=NOT_OPTIONS)

    def __call__(self, batch: DistillationBatch, **options: Any) -> dict[str, Tensor]:
        """Return one scalar loss, without a suffix."""
        pair = batch.objectness
        assert pair is not None and pair.normalizer is not None, "R-CNNs have them"
        logits, weight = (pair.student_logits, pair.teacher_logits), pair.sample_weight
        loss = bernoulli_kd_loss(*logits, weight=weight, reduction="none", **options)
        return {"": loss.sum() / pair.normalizer}


class BoxHeadDistiller(Distiller):
    """FCFD on the levels of the FPN and the box heads.

    The EA weight of the maps is that of each image, that of the predictions of each ROI.
    """

    compares = "heads"
    has_adapter = True

    def __init__(self):
        self.defaults = scalar_defaults(fcfd_heads_loss, leave_out=("image_weight", "weight"))

    def build_adapter(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        head_levels: Sequence[int],
    ) -> nn.Module:
        """Build the bridges; `head_levels` are the indices of the levels that the heads read."""
        return HeadBridges(student_channels, teacher_channels, head_levels)

    def __call__(
        self, batch: DistillationBatch, *, adapter: HeadBridges, **options: Any
    ) -> dict[str, Tensor]:
        """Return the scalar losses "_app", "_kd" and "_l2"."""
        (pair,), heads = batch.logit_pairs, batch.heads
        assert heads is not None, "R-CNNs have them"
        student_deltas, teacher_deltas = _deltas(pair)
        bridged = adapter.to_teacher(batch.student_features)
        paths = [
            (pair.student_logits, student_deltas),
            heads.teacher([bridged[i] for i in adapter.head_levels]),
            heads.student(adapter.to_student(batch.teacher_features)),
        ]
        losses = fcfd_heads_loss(
            bridged,
            batch.teacher_features,
            paths,
            (pair.teacher_logits, teacher_deltas),
            image_weight=batch.image_weight(),
            weight=pair.sample_weight,
            **options,
        )
        return {f"_{part}": loss for part, loss in losses.items()}
