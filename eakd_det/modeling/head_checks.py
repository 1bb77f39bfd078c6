"""Checks, before the first step, of methods that compare RPNs or run box heads."""

from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.proposal_generator import RPN
from torch import Tensor, nn

from eakd_det.utils.errors import UserError

from .compatibility import box_predictors, describe, same_anchors


def check_rpns(student: nn.Module, teacher: nn.Module) -> None:
    """Check that both R-CNNs have an RPN with the same anchors.

    Raises:
        UserError: they do not.
    """
    for model, side in [(student, "student"), (teacher, "teacher")]:
        is_rcnn = isinstance(model, GeneralizedRCNN)
        if not is_rcnn or not isinstance(model.proposal_generator, RPN):
            raise UserError(
                "DISTILL.METHODS: RPN compares the objectness of two RPNs, but the "
                f"{side}, a {describe(model)}, has none (MODEL.PROPOSAL_GENERATOR.NAME RPN has)."
            )
    generators = [model.proposal_generator.anchor_generator for model in (student, teacher)]
    if not same_anchors(*generators):
        here, there = (_describe_anchors(generator) for generator in generators)
        raise UserError(
            f"DISTILL.METHODS: RPN compares anchors, but the student's are {here} and the "
            f"teacher's {there}: give both the same MODEL.ANCHOR_GENERATOR and "
            "MODEL.RPN.IN_FEATURES of the same strides."
        )


def _describe_anchors(generator: nn.Module) -> str:
    levels = zip(generator.strides, generator.cell_anchors, strict=True)
    text = "; ".join(f"stride {s}: {_sizes(cell)}" for s, cell in levels)
    return f"({text})"


def _sizes(cell: Tensor) -> str:
    return ", ".join(f"{x2 - x1:.0f} x {y2 - y1:.0f}" for x1, y1, x2, y2, *_ in cell.tolist())


def check_box_heads(student: nn.Module, teacher: nn.Module) -> None:
    """Check that FCFD's paths can end in either of two box heads that classify alike.

    Raises:
        UserError: they cannot.
    """
    heads = [box_predictors(model) for model in (student, teacher)]
    for predictors, side in zip(heads, ("student", "teacher"), strict=True):
        if len(predictors) > 1:
            raise UserError(
                f"FCFD crosses from one box head into the other, but the {side} is a cascade of "
                f"{len(predictors)} stages: set MODEL.ROI_HEADS.NAME StandardROIHeads, or choose "
                "another method."
            )
    here, there = (model.roi_heads.num_classes for model in (student, teacher))
    if here != there:
        raise UserError(
            f"FCFD runs both box heads on the same maps: the student has {here} classes and the "
            f"teacher {there}, and DISTILL.CLASSES does not help. Set MODEL.ROI_HEADS.NUM_CLASSES "
            "to the teacher's number, or choose another method."
        )
    widths = [predictors[0].bbox_pred.out_features for predictors in heads]
    if widths[0] != widths[1]:
        raise UserError(
            f"FCFD compares all box deltas: the student's head has {widths[0]} and the teacher's "
            f"{widths[1]}. Set MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG to the teacher's."
        )
    units = [tuple(predictors[0].box2box_transform.weights) for predictors in heads]
    if units[0] != units[1]:
        raise UserError(
            f"FCFD compares box deltas, but the student's are in units of {units[0]} and the "
            f"teacher's of {units[1]}: set MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS to the teacher's."
        )


def find_head_levels(
    student: nn.Module, teacher: nn.Module, levels: list[tuple[str, str]]
) -> list[int]:
    """Return the indices, in the compared levels, of those that both box heads read.

    Args:
        levels: names of the student's and the teacher's compared maps, finest first.

    Raises:
        UserError: the box heads read different levels, or some that are not compared.
    """
    here, there = (model.roi_heads.box_in_features for model in (student, teacher))
    pairs = list(zip(here, there, strict=False))
    if len(here) != len(there) or not set(pairs) <= set(levels):
        raise UserError(
            f"FCFD: the student's box head reads {', '.join(here)} and the teacher's "
            f"{', '.join(there)}, but the levels that are compared are "
            f"{', '.join(ours for ours, _ in levels)} and {', '.join(t for _, t in levels)}: both "
            "must read levels of the same strides, and all of these must be compared."
        )
    return [levels.index(pair) for pair in pairs]
