"""Distillation losses: functions of tensors, on torch alone.

The EA form of each is `weight=entropy_weight(student_logits, teacher_logits)`.
"""

from .bernoulli import bernoulli_entropy, bernoulli_kd_loss
from .box_regression import bounded_box_loss
from .chunk import LanguageHead
from .chunked import chunked_loss
from .ctkd import CurriculumTemperature, curriculum_strength
from .cwd import cwd_loss
from .dist import bernoulli_dist_loss, dist_loss
from .divergence import (
    forward_kl,
    jensen_shannon,
    reverse_kl,
    skewed_forward_kl,
    skewed_reverse_kl,
    symmetric_kl,
)
from .dkd import dkd_loss
from .entropy import combine_entropies, entropy, entropy_weight
from .fcfd import fcfd_loss, feature_rampup
from .fcfd_bridges import FeatureBridges
from .fcfd_heads import HeadBridges, fcfd_heads_loss
from .fcfd_paths import PathOutputs, draw_paths, run_paths
from .fgd import GlobalRelation, fgd_loss
from .kd import kd_loss
from .map_adapter import MapAdapter
from .mgd import MaskedGeneration, draw_masks, mgd_loss
from .multi_level import multi_level_loss
from .nkd import nkd_loss
from .pad import PrimeAwareHead, pad_loss
from .pkd import pkd_loss
from .reviewkd import ReviewFusion, hcl_loss
from .softmax import shared_softmax
from .standardize import standardize
from .ttm import ttm_loss, wttm_loss

__all__ = [
    "CurriculumTemperature",
    "FeatureBridges",
    "GlobalRelation",
    "HeadBridges",
    "LanguageHead",
    "MapAdapter",
    "MaskedGeneration",
    "PathOutputs",
    "PrimeAwareHead",
    "ReviewFusion",
    "bernoulli_dist_loss",
    "bernoulli_entropy",
    "bernoulli_kd_loss",
    "bounded_box_loss",
    "chunked_loss",
    "combine_entropies",
    "curriculum_strength",
    "cwd_loss",
    "dist_loss",
    "dkd_loss",
    "draw_masks",
    "draw_paths",
    "entropy",
    "entropy_weight",
    "fcfd_heads_loss",
    "fcfd_loss",
    "feature_rampup",
    "fgd_loss",
    "forward_kl",
    "hcl_loss",
    "jensen_shannon",
    "kd_loss",
    "mgd_loss",
    "multi_level_loss",
    "nkd_loss",
    "pad_loss",
    "pkd_loss",
    "reverse_kl",
    "run_paths",
    "shared_softmax",
    "skewed_forward_kl",
    "skewed_reverse_kl",
    "standardize",
    "symmetric_kl",
    "ttm_loss",
    "wttm_loss",
]
