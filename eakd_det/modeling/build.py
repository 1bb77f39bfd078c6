"""Student and teacher of a run as stock models with their weights."""

import sys

import torch
from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN, build_model
from detectron2.structures import Instances
from torch import nn

from eakd_det.checkpoint.checkpointer import load_strictly
from eakd_det.config.defaults import stock_config
from eakd_det.config.merge import merge_options
from eakd_det.data.class_names import known_names, loaded_names
from eakd_det.distillers import ClassMap
from eakd_det.utils.errors import UserError

from .class_checks import map_classes
from .compatibility import box_predictors
from .teacher.build import has_yaml_config, load_detector, teacher_config


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
    """Load the teacher of a run: a stock config for the student's data, and the model.

    With DISTILL.CLASSES its detections are those of the common classes, with the student's numbers.

    Raises:
        UserError: see `comparable_teacher_config`, the weights do not fit the model exactly, or the
            teacher has another number of classes without DISTILL.CLASSES.
    """
    teacher = comparable_teacher_config(cfg)
    detector = load_detector(cfg.TEACHER.CONFIG_FILE, cfg.TEACHER.WEIGHTS, cfg.MODEL.DEVICE)
    teacher.INPUT.FORMAT = detector.input_format
    model, (key, here) = detector.model.eval(), num_classes(cfg)
    heads = model.roi_heads if isinstance(model, GeneralizedRCNN) else model
    names = known_names(detector.class_names, detector.dataset, heads.num_classes)
    class_map = map_classes(
        (_student_names(cfg) if cfg.DISTILL.CLASSES else (), here),
        (names, heads.num_classes),
        cfg.DISTILL.CLASSES,
        key,
    )
    if class_map is not None:
        _detect_common(model, class_map)
    return teacher, model


def _student_names(cfg: CfgNode) -> tuple[str, ...]:
    """Return the names of the student's classes, from its training data or, without, its others.

    Commands that do not train register own validation data alone.
    """
    datasets = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    return next(filter(None, map(loaded_names, datasets)), ())


def _detect_common(model: nn.Module, class_map: ClassMap) -> None:
    """Let a teacher detect the common classes alone, under the student's numbers.

    Detections of other classes do not count among the most that an image may have.
    """
    numbers = torch.full((class_map.num_teacher,), -1)
    numbers[list(class_map.teacher)] = torch.tensor(class_map.student)
    most = _lift_limit(model)

    def rename(_: nn.Module, __: tuple, outputs: list[dict[str, Instances]]) -> None:
        for output in outputs:
            found = output["instances"]
            renamed = numbers.to(found.pred_classes.device)[found.pred_classes]
            found.pred_classes = renamed
            output["instances"] = found[renamed >= 0][:most]  # the highest scores come first

    model.register_forward_hook(rename)


def _lift_limit(model: nn.Module) -> int | None:
    """Let a detector return all detections of an image; return the limit, None without one."""
    if isinstance(model, GeneralizedRCNN):
        predictors = box_predictors(model)
        most = predictors[-1].test_topk_per_image
        for predictor in predictors:
            predictor.test_topk_per_image = -1  # all
    else:
        most, model.max_detections_per_image = model.max_detections_per_image, sys.maxsize
    return most if most >= 0 else None


def comparable_teacher_config(cfg: CfgNode) -> CfgNode:
    """Return a stock config to evaluate a run's teacher on the student's data.

    That of a YAML config has the teacher's own input sizes; others have the student's.

    Raises:
        UserError: there is no teacher, or its config has another number of classes and
            DISTILL.CLASSES does not name the common ones.
    """
    if not has_yaml_config(cfg):
        return stock_config(cfg)
    teacher = teacher_config(cfg)
    (key, there), (_, here) = num_classes(teacher), num_classes(cfg)
    if here != there and not cfg.DISTILL.CLASSES:
        raise UserError(
            f"The teacher has {there} classes and the student {here}: it cannot be evaluated or "
            f"drawn on the student's data ({key}), unless DISTILL.CLASSES names the common ones."
        )
    if cfg.DISTILL.CLASSES:
        merge_options(teacher, [key, str(here)])
    return teacher
