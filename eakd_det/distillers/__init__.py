"""Distillation methods: from a batch of student, teacher and labels to named, weighted losses.

A method on logits is a line in DISTILLERS; it then exists for detectors and classifiers, and its
options are keys of their configs.
"""

from eakd_det.losses.bernoulli import bernoulli_kd_loss
from eakd_det.losses.dkd import dkd_loss
from eakd_det.losses.kd import kd_loss

from .base import Distiller
from .batch import DistillationBatch, LogitPair
from .ea import EA_MODES
from .features import ReviewDistiller
from .logits import LogitDistiller
from .objective import DistillationObjective
from .settings import method_settings, scalar_defaults

# DISTILL.METHODS of detectors; classifiers have more (classification.distillers).
DISTILLERS: dict[str, Distiller] = {
    "KD": LogitDistiller(kd_loss, sigmoid_loss=bernoulli_kd_loss),
    "DKD": LogitDistiller(
        dkd_loss,
        note_on_one_class="beside the target only one class is left, so that NCKD is 0 and BETA "
        'without effect; DISTILL.METHODS ("KD",) is the same as ALPHA 1',
    ),
    "REVIEWKD": ReviewDistiller(),
}

__all__ = [
    "DISTILLERS",
    "EA_MODES",
    "DistillationBatch",
    "DistillationObjective",
    "Distiller",
    "LogitDistiller",
    "LogitPair",
    "ReviewDistiller",
    "method_settings",
    "scalar_defaults",
]
