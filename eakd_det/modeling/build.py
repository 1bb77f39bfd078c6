"""Student and teacher of a run as stock models with their weights."""

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from eakd_det.checkpoint.checkpointer import load_strictly
from eakd_det.config.defaults import stock_config
from eakd_det.utils.errors import UserError

from .teacher.build import teacher_config


def num_classes(cfg: CfgNode) -> tuple[str, int]:
    """Return the config key of the number of classes, and its value."""
    is_retina = "RetinaNet" in cfg.MODEL.META_ARCHITECTURE
    key = "RETINANET" if is_retina else "ROI_HEADS"
    return f"MODEL.{key}.NUM_CLASSES", cfg.MODEL[key].NUM_CLASSES


def load_student(cfg: CfgNode, weights: str) -> tuple[CfgNode, nn.Module]:
    """Build the plain student of a run, its stock config and model, with given weights.

    Raises:
        UserError: the weights do not fit the stock model exactly.
    """
    cfg = stock_config(cfg)
    model = build_model(cfg)
    load_strictly(model, weights, key="MODEL.WEIGHTS")
    return cfg, model


def load_teacher(cfg: CfgNode) -> tuple[CfgNode, nn.Module]:
    """Build the teacher of a run, its stock config and model, with its weights.

    Raises:
        UserError: see `comparable_teacher_config`, or the weights do not fit the model exactly.
    """
    teacher = comparable_teacher_config(cfg)
    model = build_model(teacher)
    load_strictly(model, cfg.TEACHER.WEIGHTS, key="TEACHER.WEIGHTS", side="teacher")
    return teacher, model


def comparable_teacher_config(cfg: CfgNode) -> CfgNode:
    """Return the stock config of a teacher that can be evaluated on the student's data.

    Raises:
        UserError: there is no teacher, or it has another number of classes.
    """
    teacher = teacher_config(cfg)
    (key, there), (_, here) = num_classes(teacher), num_classes(cfg)
    if here != there:
        raise UserError(
            f"The teacher has {there} classes and the student {here}: it cannot be evaluated or "
            f"drawn on the student's data ({key})."
        )
    return teacher
