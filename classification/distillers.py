"""From what student and teacher say of a batch of images to losses: the methods of classification.

N counts images, C classes. The EA weight of each image is made once, for all methods.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from eakd_det.distillers.methods import (
    Comparison,
    Head,
    HelpedDistiller,
    LogitDistiller,
    ReviewDistiller,
    scalar_defaults,
)
from eakd_det.losses import (
    CurriculumTemperature,
    FeatureBridges,
    PathOutputs,
    PrimeAwareHead,
    curriculum_strength,
    dkd_loss,
    draw_paths,
    fcfd_loss,
    feature_rampup,
    kd_loss,
    multi_level_loss,
    pad_loss,
    run_paths,
    ttm_loss,
    wttm_loss,
)
from eakd_det.utils.errors import UserError

from .models import StagedClassifier


@dataclass
class ImageComparison(Comparison):
    """Student and teacher on one batch of images.

    The features are the stages' maps without the stem's, the student's after the activation and
    the teacher's before it, and last the pooled features, (N, D, 1, 1). `heads` has one, of the
    weak view.

    Attributes:
        strong: what both say of the strong view; None if no method asks for it.
        paths: what the paths through both networks say; None if no method asks for it.
        epoch: counted from 1.
    """

    strong: Head | None = None
    paths: PathOutputs | None = None
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

    def build_helper(self, *networks: Any) -> nn.Module:
        """The temperature, whatever the networks are."""
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


class PathDistiller(HelpedDistiller):
    """FCFD: paths that begin in one network and end in the other.

    It runs both networks itself.

    Attributes:
        defaults, compares: as those of ReviewDistiller.
    """

    compares = "paths"

    def __init__(self):
        losses_own = scalar_defaults(fcfd_loss, leave_out=("weight",))
        self.defaults = {**losses_own, **scalar_defaults(feature_rampup)}

    def build_helper(self, student: nn.Module, teacher: nn.Module, images: Tensor) -> nn.Module:
        """The bridges between the networks.

        Args:
            images: an example, (1, 3, H, W).

        Raises:
            UserError: the networks have other stages, or maps that no bridge fits.
        """
        for network in (student, teacher):
            if not isinstance(network, StagedClassifier):
                raise UserError(
                    f"FCFD cuts networks into stages, which {type(network).__name__} does not "
                    "have; take a model of classification.models."
                )
        try:
            return FeatureBridges(student, teacher, images)
        except ValueError as error:
            raise UserError(f"FCFD: {error}") from error

    def run(
        self, student: nn.Module, teacher: nn.Module, helper: nn.Module, images: Tensor, seed: int
    ) -> PathOutputs:
        """Both networks and two mixed paths that the seed draws."""
        return run_paths(student, teacher, helper, images, draw_paths(student.num_stages, seed))

    def __call__(
        self,
        comparison: ImageComparison,
        *,
        helper: nn.Module,
        feature_weight: float,
        feature_warmup: int,
        **options: Any,
    ) -> dict[str, Tensor]:
        """ "_l2" and "_kl"."""
        rampup = feature_rampup(comparison.epoch, feature_warmup=feature_warmup)
        losses = fcfd_loss(
            comparison.paths,
            feature_weight=rampup * feature_weight,
            weight=comparison.image_weight(),
            **options,
        )
        return {f"_{part}": loss for part, loss in losses.items()}


DISTILLERS = {
    "KD": LogitDistiller(kd_loss),
    "DKD": LogitDistiller(dkd_loss),
    "TTM": LogitDistiller(ttm_loss),
    "WTTM": LogitDistiller(wttm_loss, has_ea_form=False),
    "MLD": MultiLevelDistiller(),
    "CTKD": CurriculumDistiller(),
    "PAD": PrimeAwareDistiller(),
    "REVIEWKD": ReviewDistiller(),
    "FCFD": PathDistiller(),
}
