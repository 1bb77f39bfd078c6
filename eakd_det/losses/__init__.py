"""Distillation losses: functions of tensors, on torch alone.

The EA form of each is `weight=entropy_weight(student_logits, teacher_logits)`.
"""

from .bernoulli import bernoulli_entropy, bernoulli_kd_loss
from .dkd import dkd_loss
from .entropy import combine_entropies, entropy, entropy_weight
from .kd import kd_loss
from .reviewkd import ReviewFusion, hcl_loss
from .standardize import standardize

__all__ = [
    "ReviewFusion",
    "bernoulli_entropy",
    "bernoulli_kd_loss",
    "combine_entropies",
    "dkd_loss",
    "entropy",
    "entropy_weight",
    "hcl_loss",
    "kd_loss",
    "standardize",
]
