"""Distillation losses: functions of tensors, on torch alone.

The EA form of each is `weight=entropy_weight(student_logits, teacher_logits)`.
"""

from .bernoulli import bernoulli_entropy, bernoulli_kd_loss
from .ctkd import CurriculumTemperature, curriculum_strength
from .dkd import dkd_loss
from .entropy import combine_entropies, entropy, entropy_weight
from .fcfd import fcfd_loss, feature_rampup
from .fcfd_bridges import FeatureBridges
from .fcfd_paths import PathOutputs, draw_paths, run_paths
from .kd import kd_loss
from .multi_level import multi_level_loss
from .pad import PrimeAwareHead, pad_loss
from .reviewkd import ReviewFusion, hcl_loss
from .softmax import shared_softmax
from .standardize import standardize
from .ttm import ttm_loss, wttm_loss

__all__ = [
    "CurriculumTemperature",
    "FeatureBridges",
    "PathOutputs",
    "PrimeAwareHead",
    "ReviewFusion",
    "bernoulli_entropy",
    "bernoulli_kd_loss",
    "combine_entropies",
    "curriculum_strength",
    "dkd_loss",
    "draw_paths",
    "entropy",
    "entropy_weight",
    "fcfd_loss",
    "feature_rampup",
    "hcl_loss",
    "kd_loss",
    "multi_level_loss",
    "pad_loss",
    "run_paths",
    "shared_softmax",
    "standardize",
    "ttm_loss",
    "wttm_loss",
]
