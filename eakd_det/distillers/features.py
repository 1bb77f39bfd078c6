"""Distillation methods that compare feature maps."""

from collections.abc import Sequence

from torch import Tensor, nn

from eakd_det.losses import ReviewFusion, hcl_loss

from .base import Distiller
from .batch import DistillationBatch


class ReviewDistiller(Distiller):
    """ReviewKD on the levels of the FPN, or the stages of a classifier.

    The EA weight is one value an image. It has no options.
    """

    compares = "features"
    has_adapter = True

    def __init__(self):
        self.defaults = {}

    def build_adapter(
        self, student_channels: Sequence[int], teacher_channels: Sequence[int]
    ) -> nn.Module:
        """Build the fusion modules for maps of these channels, finest level first."""
        return ReviewFusion(student_channels, teacher_channels)

    def __call__(self, batch: DistillationBatch, *, adapter: nn.Module) -> dict[str, Tensor]:
        """Return one scalar loss, without a suffix."""
        shapes = [x.shape[-2:] for x in batch.teacher_features]
        fused = adapter(batch.student_features, shapes)
        return {"": hcl_loss(fused, batch.teacher_features, weight=batch.image_weight())}
