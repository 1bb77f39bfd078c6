"""From what student and teacher say of a batch of images to losses: the methods of classification.

N counts images, C classes. The EA weight of each image is made once, for all methods.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from eakd_det.distillers import (
    Comparison,
    Head,
    HelpedDistiller,
    LogitDistiller,
    ReviewDistiller,
    scalar_defaults,
)
from eakd_det.losses import (
    CurriculumTemperature,
    PrimeAwareHead,
    curriculum_strength,
    dkd_loss,
    kd_loss,
    multi_level_loss,
    pad_loss,
    ttm_loss,
    wttm_loss,
)


@dataclass
class ImageComparison(Comparison):
    """Student and teacher on one batch of images.

    The features are the stages' maps without the stem's, the student's after the activation and
    the teacher's before it, and last the pooled features, (N, D, 1, 1). `heads` has one, of the
    weak view.

    Attributes:
        strong: what both say of the strong view; None if no method asks for it.
        epoch: counted from 1.
    """

    strong: Head | None = None
    epoch: int = 1

    def image_weight(self) -> Tensor | None:
        """(N,) EA weight."""
        return self.heads[0].weight


class MultiLevelDistiller:
    """MLD on a weak and a strong view of each image.

    Attributes:
        defaults, compares: as those of LogitDistiller.
    """

    compares = "views"
    has_ea_form = True
    has_helper = False

    def __init__(self):
        self.defaults = scalar_defaults(
            multi_level_loss, leave_out=("weak_weight", "strong_weight")
        )

    def __call__(self, comparison: ImageComparison, **options: Any) -> dict[str, Tensor]:
        """One scalar loss, without a suffix."""
        (weak,), strong = comparison.heads, comparison.strong
        loss = multi_level_loss(
            weak.student_logits,
            strong.student_logits,
            weak.teacher_logits,
            strong.teacher_logits,
            weak_weight=weak.weight,
            strong_weight=strong.weight,
            **options,
        )
        return {"": loss}


class CurriculumDistiller(HelpedDistiller):
    """CTKD: KD at a temperature that is trained against the student, harder epoch by epoch.

    Attributes:
        defaults: "epochs" of the curriculum.
        compares: as that of LogitDistiller.
    """

    compares = "logits"

    def __init__(self):
        self.defaults = scalar_defaults(curriculum_strength)

    def build_helper(self, *channels: list[int]) -> nn.Module:
        """The temperature."""
        return CurriculumTemperature()

    def statistics(self, helper: nn.Module) -> dict[str, float]:
        """The temperature."""
        return {"distill/temperature": helper(0.0).item()}

    def __call__(
        self, comparison: ImageComparison, *, helper: nn.Module, **options: Any
    ) -> dict[str, Tensor]:
        """One scalar loss, without a suffix."""
        (head,) = comparison.heads
        temperature = helper(curriculum_strength(comparison.epoch, **options))
        loss = kd_loss(
            head.student_logits, head.teacher_logits, temperature=temperature, weight=head.weight
        )
        return {"": loss}


class PrimeAwareDistiller(HelpedDistiller):
    """PAD on the pooled features.

    Attributes:
        defaults, compares: as those of ReviewDistiller.
    """

    compares = "features"

    def __init__(self):
        self.defaults = {}

    def build_helper(self, student_channels: list[int], teacher_channels: list[int]) -> nn.Module:
        """The branches that map the student's features and say how certain they are."""
        return PrimeAwareHead(student_channels[-1], teacher_channels[-1])

    def __call__(self, comparison: ImageComparison, *, helper: nn.Module) -> dict[str, Tensor]:
        """One scalar loss, without a suffix."""
        mapped, log_variance = helper(comparison.student_features[-1].flatten(1))
        teacher_features = comparison.teacher_features[-1].flatten(1)
        weight = comparison.image_weight()
        return {"": pad_loss(mapped, teacher_features, log_variance, weight=weight)}


DISTILLERS = {
    "KD": LogitDistiller(kd_loss),
    "DKD": LogitDistiller(dkd_loss),
    "TTM": LogitDistiller(ttm_loss),
    "WTTM": LogitDistiller(wttm_loss, has_ea_form=False),
    "MLD": MultiLevelDistiller(),
    "CTKD": CurriculumDistiller(),
    "PAD": PrimeAwareDistiller(),
    "REVIEWKD": ReviewDistiller(),
}
