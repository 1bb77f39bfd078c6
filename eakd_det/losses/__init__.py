"""Distillation losses: functions of tensors, on torch alone.

The EA form of each is `weight=entropy_weight(student_logits, teacher_logits)`.
"""

from .bernoulli import bernoulli_entropy, bernoulli_kd_loss
from .ctkd import CurriculumTemperature, curriculum_strength
from .dkd import dkd_loss
from .entropy import combine_entropies, entropy, entropy_weight
from .kd import kd_loss
from .multi_level import multi_level_loss
from .pad import PrimeAwareHead, pad_loss
from .reviewkd import ReviewFusion, hcl_loss
from .standardize import standardize
from .ttm import ttm_loss, wttm_loss

__all__ = [
    "CurriculumTemperature",
    "PrimeAwareHead",
    "ReviewFusion",
    "bernoulli_entropy",
    "bernoulli_kd_loss",
    "combine_entropies",
    "curriculum_strength",
    "dkd_loss",
    "entropy",
    "entropy_weight",
    "hcl_loss",
    "kd_loss",
    "multi_level_loss",
    "pad_loss",
    "standardize",
    "ttm_loss",
    "wttm_loss",
]
