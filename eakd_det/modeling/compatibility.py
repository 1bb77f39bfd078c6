"""Checks, before the first step, that a student can be distilled from a teacher."""

import logging
from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN, RetinaNet
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, StandardROIHeads
from torch import nn

from eakd_det.distillers import DISTILLERS, LogitDistiller
from eakd_det.utils.errors import UserError

# The way out where heads cannot be compared.
_WITHOUT_LOGITS = (
    ", or compare feature maps alone, which any two detectors have: DISTILL.METHODS of those, such "
    'as ("REVIEWKD",), with DISTILL.EA.ENABLED False'
)


def box_predictors(model: nn.Module) -> list[nn.Module]:
    """Return the box predictors of an R-CNN, one for each stage of a cascade."""
    predictor = model.roi_heads.box_predictor
    return list(predictor) if isinstance(predictor, nn.ModuleList) else [predictor]


def check_roi_heads(student: nn.Module, teacher: nn.Module) -> None:
    """Check that both R-CNNs classify ROIs of an FPN with softmaxes.

    A warning is logged for stages of a cascaded teacher that are not used.

    Raises:
        UserError: they do not.
    """
    for model, place in [(student, "the student's config"), (teacher, "TEACHER.CONFIG_FILE")]:
        remedy = roi_remedy(model)
        if remedy:
            raise UserError(
                "DISTILL.METHODS compares softmaxes over ROIs pooled from an FPN, but the "
                f"student is a {describe(student)} and the teacher a {describe(teacher)}: "
                f"set {remedy} in {place}{_WITHOUT_LOGITS}."
            )
    stages = [len(box_predictors(model)) for model in (student, teacher)]
    if stages[0] < stages[1]:
        logging.getLogger(__name__).warning(
            f"The teacher is a cascade of {stages[1]} stages, and the student has {stages[0]}: the "
            "teacher's later stages, to which it owes its AP, are not distilled. Set "
            "MODEL.ROI_HEADS.NAME CascadeROIHeads to make the student a cascade, too."
        )


def check_dense_heads(
    student: nn.Module, teacher: nn.Module, methods: dict[str, dict[str, Any]]
) -> None:
    """Check that both RetinaNets classify the same anchors.

    Args:
        methods: name in DISTILLERS -> its options.

    Raises:
        UserError: they do not, or a method or one of its options does not support sigmoids.
    """
    for name, options in methods.items():
        if options.get("standardize"):
            raise UserError(
                f"DISTILL.{name}.STANDARDIZE removes the mean over an anchor's classes, in which "
                "RetinaNet's foreground and background differ: set it to False."
            )
        if not _takes_sigmoids(name):
            lacks = "the ROIs or the RPN of an R-CNN, which a RetinaNet does not have"
            if isinstance(DISTILLERS[name], LogitDistiller):
                lacks = "a softmax, but a RetinaNet has a sigmoid for each class"
            known = filter(_takes_sigmoids, DISTILLERS)
            raise UserError(
                f"DISTILL.METHODS: {name} needs {lacks}; choose from {', '.join(known)}."
            )
    if not isinstance(teacher, RetinaNet):
        raise UserError(
            f"DISTILL.METHODS compares the anchors of two RetinaNets, but the teacher is a "
            f"{describe(teacher)}: set TEACHER.CONFIG_FILE to a RetinaNet{_WITHOUT_LOGITS}."
        )
    if not same_anchors(student.anchor_generator, teacher.anchor_generator):
        raise UserError(
            "The student's anchors are not the teacher's: give both the same "
            "MODEL.ANCHOR_GENERATOR and MODEL.RETINANET.IN_FEATURES."
        )


def same_anchors(student: nn.Module, teacher: nn.Module) -> bool:
    """Return whether two anchor generators make the same anchors on maps of the same size.

    They may differ as much as torchvision's differ from Detectron2's: by rounding of sizes, and of
    edges to whole pixels.
    """
    if student.strides != teacher.strides or student.offset != teacher.offset:
        return False
    return all(
        here.shape == there.shape and torch.allclose(here.cpu(), there.cpu(), rtol=0.02, atol=0.5)
        for here, there in zip(student.cell_anchors, teacher.cell_anchors, strict=True)
    )


def _takes_sigmoids(name: str) -> bool:
    distiller = DISTILLERS[name]
    if isinstance(distiller, LogitDistiller):
        return distiller.sigmoid_loss is not None
    return distiller.compares == "features"


def check_input_formats(student: str | None, teacher: str) -> None:
    """Check that the input formats are equal, or RGB and BGR, which can be converted.

    Raises:
        UserError: they cannot be converted.
    """
    if student != teacher and {student, teacher} != {"RGB", "BGR"}:
        raise UserError(
            f"The student reads {student} images and the teacher {teacher}: these cannot be "
            "converted; give both the same INPUT.FORMAT, or RGB and BGR."
        )


def describe(model: nn.Module) -> str:
    """Describe a detector for a message: its architecture, its ROI heads and their classifier."""
    if not isinstance(model, GeneralizedRCNN):
        return type(model).__name__
    classifier = "a sigmoid" if _is_fast_rcnn(model) and _uses_sigmoid(model) else "a softmax"
    return f"{type(model.roi_heads).__name__} R-CNN with {classifier} classifier"


def roi_remedy(model: nn.Module) -> str:
    """Return the setting that a detector lacks for softmax distillation; empty if there is none."""
    if not isinstance(model, GeneralizedRCNN):
        return "MODEL.META_ARCHITECTURE GeneralizedRCNN"
    if not _is_fast_rcnn(model):
        return "MODEL.ROI_HEADS.NAME StandardROIHeads on an FPN backbone (a C4 head has none)"
    if _uses_sigmoid(model):
        return "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE False"
    return ""


def _is_fast_rcnn(model: nn.Module) -> bool:
    return isinstance(model.roi_heads, StandardROIHeads) and all(
        isinstance(predictor, FastRCNNOutputLayers) for predictor in box_predictors(model)
    )


def _uses_sigmoid(model: nn.Module) -> bool:
    return any(predictor.use_sigmoid_ce for predictor in box_predictors(model))
