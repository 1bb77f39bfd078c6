"""Distillation methods that compare feature maps.

Maps are those of the levels of the FPN, or the stages of a classifier. Their EA weight is one value
an image.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from eakd_det.losses import (
    GlobalRelation,
    MapAdapter,
    MaskedGeneration,
    ReviewFusion,
    draw_masks,
    fgd_loss,
    hcl_loss,
    mgd_loss,
)

from .base import Distiller
from .batch import DistillationBatch
from .settings import scalar_defaults


class FeatureDistiller(Distiller):
    """A method whose adapter is built from the channels of the maps.

    Attributes:
        adapter: its class; it takes the student's and the teacher's channels.
    """

    compares = "features"
    has_adapter = True
    adapter: type[nn.Module]

    def build_adapter(
        self, student_channels: Sequence[int], teacher_channels: Sequence[int]
    ) -> nn.Module:
        """Build the adapter for maps of these channels, finest level first."""
        return self.adapter(student_channels, teacher_channels)


class ReviewDistiller(FeatureDistiller):
    """ReviewKD. It has no options."""

    adapter = ReviewFusion

    def __init__(self):
        self.defaults = {}

    def __call__(self, batch: DistillationBatch, *, adapter: nn.Module) -> dict[str, Tensor]:
        """Return one scalar loss, without a suffix."""
        fused = adapter(batch.student_features, _shapes(batch))
        return {"": hcl_loss(fused, batch.teacher_features, weight=batch.image_weight())}


class MapDistiller(FeatureDistiller):
    """A loss on maps of equal shapes; the student's are adapted where they differ.

    The options are those of the loss.
    """

    adapter = MapAdapter

    def __init__(self, loss: Callable[..., Tensor]):
        """
        Args:
            loss: a function of (student_features, teacher_features, *, weight, **options).
        """
        self.loss = loss
        self.defaults = scalar_defaults(loss, leave_out=("weight",))

    def __call__(
        self, batch: DistillationBatch, *, adapter: nn.Module, **options: Any
    ) -> dict[str, Tensor]:
        """Return one scalar loss, without a suffix."""
        maps = adapter(batch.student_features, _shapes(batch))
        weight = batch.image_weight()
        return {"": self.loss(maps, batch.teacher_features, weight=weight, **options)}


class MaskedDistiller(FeatureDistiller):
    """MGD. The masks are drawn in each step, from the global random state of the maps' device."""

    adapter = MaskedGeneration

    def __init__(self):
        losses_own = scalar_defaults(mgd_loss, leave_out=("weight",))
        self.defaults = {**losses_own, **scalar_defaults(draw_masks)}

    def changing_epochs(self, **options: Any) -> float:
        """Return infinity: the masks of each step are drawn anew."""
        return math.inf

    def __call__(
        self, batch: DistillationBatch, *, adapter: nn.Module, mask_ratio: float, **options: Any
    ) -> dict[str, Tensor]:
        """Return one scalar loss, without a suffix."""
        masks = draw_masks(batch.teacher_features, mask_ratio=mask_ratio)
        maps = adapter(batch.student_features, _shapes(batch), masks)
        weight = batch.image_weight()
        return {"": mgd_loss(maps, batch.teacher_features, weight=weight, **options)}


class FocalGlobalDistiller(FeatureDistiller):
    """FGD, which also needs the ground truth's boxes."""

    adapter = GlobalRelation

    def __init__(self):
        self.defaults = scalar_defaults(fgd_loss, leave_out=("weight",))

    def __call__(
        self, batch: DistillationBatch, *, adapter: nn.Module, **options: Any
    ) -> dict[str, Tensor]:
        """Return one scalar loss, without a suffix."""
        assert batch.boxes is not None, "a batch of a detector"
        maps, contexts = adapter(batch.student_features, batch.teacher_features)
        boxes = batch.boxes()
        loss = fgd_loss(
            maps,
            batch.teacher_features,
            contexts,
            boxes,
            sizes=[batch.padded_size] * len(boxes),
            weight=batch.image_weight(),
            **options,
        )
        return {"": loss}


def _shapes(batch: DistillationBatch) -> list[tuple[int, ...]]:
    """Return (H, W) of the teacher's maps."""
    return [x.shape[-2:] for x in batch.teacher_features]
