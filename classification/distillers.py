"""Distillation methods of classifiers: those that detectors share, and their own.

N counts images.
"""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from eakd_det.distillers import (
    SHARED_DISTILLERS,
    DistillationBatch,
    Distiller,
    LogitDistiller,
    LogitPair,
    scalar_defaults,
)
from eakd_det.losses import (
    CurriculumTemperature,
    FeatureBridges,
    PathOutputs,
    PrimeAwareHead,
    curriculum_strength,
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
class ClassifierBatch(DistillationBatch):
    """A batch of images.

    The features are the stages' maps without the stem's, the student's after the activation and
    the teacher's before it, and last the pooled features, (N, D, 1, 1). `logit_pairs` has one, of
    the weak view.

    Attributes:
        strong: logits of the strong view; None if no method compares views.
        paths: outputs of the paths through both networks; None if no method compares paths.
    """

    strong: LogitPair | None = None
    paths: PathOutputs | None = None

    @property
    def weighted_pairs(self) -> list[LogitPair]:
        return self.logit_pairs if self.strong is None else [*self.logit_pairs, self.strong]

    def image_weight(self) -> Tensor | None:
        """Return the (N,) EA weights, or None without them."""
        return self.logit_pairs[0].sample_weight


class MultiLevelDistiller(Distiller):
    """MLD on a weak and a strong view of each image."""

    compares = "views"

    def __init__(self):
        self.defaults = scalar_defaults(
            multi_level_loss, leave_out=("weak_weight", "strong_weight")
        )

    def __call__(self, batch: ClassifierBatch, **options: Any) -> dict[str, Tensor]:
        """Return one scalar loss, without a suffix."""
        (weak,), strong = batch.logit_pairs, batch.strong
        loss = multi_level_loss(
            weak.student_logits,
            strong.student_logits,
            weak.teacher_logits,
            strong.teacher_logits,
            weak_weight=weak.sample_weight,
            strong_weight=strong.sample_weight,
            **options,
        )
        return {"": loss}


class CurriculumDistiller(Distiller):
    """CTKD: KD at a temperature that is trained against the student, harder epoch by epoch.

    The option "epochs" is the length of the curriculum.
    """

    compares = "logits"
    has_adapter = True

    def __init__(self):
        self.defaults = scalar_defaults(curriculum_strength)

    def build_adapter(self, *arguments: Any) -> nn.Module:
        """Build the temperature; it does not depend on the networks."""
        return CurriculumTemperature()

    def changing_epochs(self, *, epochs: int) -> float:
        """Return the length of the curriculum."""
        return epochs

    def statistics(self, adapter: nn.Module) -> dict[str, float]:
        """Return the temperature."""
        return {"distill/temperature": adapter(0.0).item()}

    def __call__(
        self, batch: ClassifierBatch, *, adapter: nn.Module, **options: Any
    ) -> dict[str, Tensor]:
        """Return one scalar loss, without a suffix."""
        (pair,) = batch.logit_pairs
        temperature = adapter(curriculum_strength(batch.epoch, **options))
        logits, weight = (pair.student_logits, pair.teacher_logits), pair.sample_weight
        return {"": kd_loss(*logits, temperature=temperature, weight=weight)}


class PrimeAwareDistiller(Distiller):
    """PAD on the pooled features. It has no options."""

    compares = "features"
    has_adapter = True

    def __init__(self):
        self.defaults = {}

    def build_adapter(self, student_channels: list[int], teacher_channels: list[int]) -> nn.Module:
        """Build the branches that map the student's features and predict their variance."""
        return PrimeAwareHead(student_channels[-1], teacher_channels[-1])

    def __call__(self, batch: ClassifierBatch, *, adapter: nn.Module) -> dict[str, Tensor]:
        """Return one scalar loss, without a suffix."""
        mapped, log_variance = adapter(batch.student_features[-1].flatten(1))
        teacher_features = batch.teacher_features[-1].flatten(1)
        weight = batch.image_weight()
        return {"": pad_loss(mapped, teacher_features, log_variance, weight=weight)}


class PathDistiller(Distiller):
    """FCFD: paths that begin in one network and end in the other. It runs both networks itself."""

    compares = "paths"
    has_adapter = True

    def __init__(self):
        losses_own = scalar_defaults(fcfd_loss, leave_out=("weight",))
        self.defaults = {**losses_own, **scalar_defaults(feature_rampup)}

    def build_adapter(self, student: nn.Module, teacher: nn.Module, images: Tensor) -> nn.Module:
        """Build the bridges between the networks.

        Args:
            images: an example, (1, 3, H, W).

        Raises:
            UserError: the stages of the networks differ, or no bridge fits their maps.
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

    def changing_epochs(self, **options: Any) -> float:
        """Return infinity: the paths of each step are drawn anew."""
        return math.inf

    def run(
        self, student: nn.Module, teacher: nn.Module, adapter: nn.Module, images: Tensor, seed: int
    ) -> PathOutputs:
        """Run both networks and two mixed paths, drawn with the seed."""
        return run_paths(student, teacher, adapter, images, draw_paths(student.num_stages, seed))

    def __call__(
        self,
        batch: ClassifierBatch,
        *,
        adapter: nn.Module,
        feature_weight: float,
        feature_warmup: int,
        **options: Any,
    ) -> dict[str, Tensor]:
        """Return the scalar losses "_l2" and "_kl"."""
        rampup = feature_rampup(batch.epoch, feature_warmup=feature_warmup)
        losses = fcfd_loss(
            batch.paths,
            feature_weight=rampup * feature_weight,
            weight=batch.image_weight(),
            **options,
        )
        return {f"_{part}": loss for part, loss in losses.items()}


DISTILLERS: dict[str, Distiller] = {
    **SHARED_DISTILLERS,
    "TTM": LogitDistiller(ttm_loss),
    "WTTM": LogitDistiller(wttm_loss, has_ea_form=False),
    "MLD": MultiLevelDistiller(),
    "CTKD": CurriculumDistiller(),
    "PAD": PrimeAwareDistiller(),
    "FCFD": PathDistiller(),
}
