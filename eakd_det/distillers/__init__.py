"""Distillation methods: from a batch of student, teacher and labels to named, weighted losses.

A method is a line in SHARED_DISTILLERS, which detectors and classifiers have, or in DISTILLERS; its
options are keys of their configs.
"""

from eakd_det.losses.bernoulli import bernoulli_kd_loss
from eakd_det.losses.dkd import dkd_loss
from eakd_det.losses.kd import kd_loss

from .base import Distiller
from .batch import BoxHeads, DistillationBatch, LogitPair
from .class_map import ClassMap, match_classes
from .ea import EA_MODES
from .features import ReviewDistiller
from .logits import LogitDistiller
from .objective import DistillationObjective
from .settings import method_settings, scalar_defaults

# Methods of detectors and classifiers.
SHARED_DISTILLERS: dict[str, Distiller] = {
    "KD": LogitDistiller(kd_loss, sigmoid_loss=bernoulli_kd_loss),
    "DKD": LogitDistiller(
        dkd_loss,
        note_on_one_class="beside the target only one class is left, so that NCKD is 0 and BETA "
        'without effect; DISTILL.METHODS ("KD",) is the same as ALPHA 1',
    ),
    "REVIEWKD": ReviewDistiller(),
}

# DISTILL.METHODS of detectors; those of classifiers are in classification.distillers.
DISTILLERS: dict[str, Distiller] = {**SHARED_DISTILLERS}

__all__ = [
    "DISTILLERS",
    "EA_MODES",
    "SHARED_DISTILLERS",
    "BoxHeads",
    "ClassMap",
    "DistillationBatch",
    "DistillationObjective",
    "Distiller",
    "LogitDistiller",
    "LogitPair",
    "ReviewDistiller",
    "match_classes",
    "method_settings",
    "scalar_defaults",
]
