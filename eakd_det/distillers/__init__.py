"""Distillation methods: from a batch of student, teacher and labels to named, weighted losses.

A method is a line in SHARED_DISTILLERS, which detectors and classifiers have, or in DISTILLERS; its
options are keys of their configs.
"""

from eakd_det.losses.bernoulli import bernoulli_kd_loss
from eakd_det.losses.cwd import cwd_loss
from eakd_det.losses.dist import bernoulli_dist_loss, dist_loss
from eakd_det.losses.dkd import dkd_loss
from eakd_det.losses.kd import kd_loss
from eakd_det.losses.nkd import nkd_loss
from eakd_det.losses.pkd import pkd_loss

from .base import Distiller
from .batch import BoxHeads, DistillationBatch, LogitPair
from .class_map import ClassMap, match_classes
from .ea import EA_MODES
from .features import FocalGlobalDistiller, MapDistiller, MaskedDistiller, ReviewDistiller
from .heads import BoxDistiller, BoxHeadDistiller, ObjectnessDistiller
from .logits import LogitDistiller
from .objective import DistillationObjective
from .settings import method_settings, name_pair, scalar_defaults

# Methods of detectors and classifiers.
SHARED_DISTILLERS: dict[str, Distiller] = {
    "KD": LogitDistiller(kd_loss, sigmoid_loss=bernoulli_kd_loss),
    "DKD": LogitDistiller(
        dkd_loss,
        note_on_one_class="beside the target only one class is left, so that NCKD is 0 and BETA "
        'without effect; DISTILL.METHODS ("KD",) is the same as ALPHA 1',
    ),
    "DIST": LogitDistiller(
        dist_loss, sigmoid_loss=bernoulli_dist_loss, can_standardize=False, is_mean=True
    ),
    "NKD": LogitDistiller(
        nkd_loss,
        can_standardize=False,
        note_on_one_class="beside the target only one class is left, so that the term of the other "
        "classes is 0 and GAMMA without effect",
    ),
    "REVIEWKD": ReviewDistiller(),
    "CWD": MapDistiller(cwd_loss),
    "PKD": MapDistiller(pkd_loss),
    "MGD": MaskedDistiller(),
}

# DISTILL.METHODS of detectors; those of classifiers are in classification.distillers.
DISTILLERS: dict[str, Distiller] = {
    **SHARED_DISTILLERS,
    "BOX": BoxDistiller(),
    "RPN": ObjectnessDistiller(),
    "FCFD": BoxHeadDistiller(),
    "FGD": FocalGlobalDistiller(),
}

__all__ = [
    "DISTILLERS",
    "EA_MODES",
    "SHARED_DISTILLERS",
    "BoxDistiller",
    "BoxHeadDistiller",
    "BoxHeads",
    "ClassMap",
    "DistillationBatch",
    "DistillationObjective",
    "Distiller",
    "LogitDistiller",
    "LogitPair",
    "ObjectnessDistiller",
    "ReviewDistiller",
    "match_classes",
    "method_settings",
    "name_pair",
    "scalar_defaults",
]
