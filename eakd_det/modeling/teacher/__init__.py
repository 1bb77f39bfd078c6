"""Frozen teachers: freeze, fuse norms, cast, compile, and log what that changed."""

from .build import build_teacher, make_teacher, teacher_config
from .detector import DetectorTeacher
from .frozen import FrozenTeacher
from .fuse_norms import freeze, fuse_batch_norms, fuse_detector_norms
from .output_difference import log_output_difference
from .with_teacher import WithTeacher

__all__ = [
    "DetectorTeacher",
    "FrozenTeacher",
    "WithTeacher",
    "build_teacher",
    "freeze",
    "fuse_batch_norms",
    "fuse_detector_norms",
    "log_output_difference",
    "make_teacher",
    "teacher_config",
]
