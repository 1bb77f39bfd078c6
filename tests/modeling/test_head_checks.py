"""Pairs that methods on RPNs and box heads refuse before the first step."""

import pytest
from detectron2.modeling import build_model

from eakd_det.utils.errors import UserError
from tests.conftest import replace_teacher

CASCADE = ["MODEL.ROI_HEADS.NAME", "CascadeROIHeads"]
CASCADE += ["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (CASCADE, "the student is a cascade of 3 stages: set MODEL.ROI_HEADS.NAME Standard"),
        (CASCADE[2:], "the student's head has 4 and the teacher's 20. Set .*CLS_AGNOSTIC_BBOX_REG"),
        (
            ["MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", (1.0, 1.0, 1.0, 1.0)],
            r"student's are in units of \(1.0, .* teacher's of \(10.0, .*BBOX_REG_WEIGHTS",
        ),
        (
            ["MODEL.ROI_HEADS.IN_FEATURES", ["p2", "p3"]],
            "student's box head reads p2, p3 and the teacher's p2, p3, p4, p5",
        ),
        (["DISTILL.LEVELS", ("p2", "p3")], "compared are p2, p3 and p2, p3: .* must be compared"),
        (["MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True], "set MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE"),
    ],
)
def test_fcfd_refuses(distill_cfg, options, message):
    distill_cfg.DISTILL.METHODS = ("FCFD",)
    distill_cfg.merge_from_list(options)
    with pytest.raises(UserError, match=message):
        build_model(distill_cfg)


def test_fcfd_refuses_other_classes(distill_cfg, teacher_cfg, tmp_path):
    replace_teacher(distill_cfg, teacher_cfg, ["MODEL.ROI_HEADS.NUM_CLASSES", 9], tmp_path)
    distill_cfg.DISTILL.METHODS = ("FCFD",)
    message = "the student has 5 classes and the teacher 9, and DISTILL.CLASSES does not help"
    with pytest.raises(UserError, match=message):
        build_model(distill_cfg)


def test_fcfd_refuses_a_cascaded_teacher(distill_cfg, teacher_cfg, tmp_path):
    replace_teacher(distill_cfg, teacher_cfg, CASCADE, tmp_path)
    distill_cfg.DISTILL.METHODS = ("FCFD",)
    with pytest.raises(UserError, match="the teacher is a cascade of 3 stages"):
        build_model(distill_cfg)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["MODEL.ANCHOR_GENERATOR.SIZES", [[8], [24], [32], [48], [64]]],
            r"student's are \(stride 4: 11 x 6, .* the teacher's \(stride 4: 23 x 11, ",
        ),
        (
            [
                *("MODEL.RPN.IN_FEATURES", ["p2", "p3", "p4", "p5"]),
                *("MODEL.ANCHOR_GENERATOR.SIZES", [[16], [24], [32], [48]]),
            ],
            "give both the same MODEL.ANCHOR_GENERATOR and MODEL.RPN.IN_FEATURES",
        ),
        (
            ["MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"],
            "the student, a StandardROIHeads R-CNN .*, has none",
        ),
    ],
)
def test_rpn_refuses(distill_cfg, options, message):
    distill_cfg.DISTILL.METHODS = ("RPN",)
    distill_cfg.merge_from_list(options)
    with pytest.raises(UserError, match=message):
        build_model(distill_cfg)


@pytest.mark.parametrize("name", ["BOX", "RPN", "FCFD"])
def test_a_retinanet_has_no_rois(retina_cfg, name):
    retina_cfg.DISTILL.METHODS, retina_cfg.DISTILL.EA.ENABLED = (name,), False
    message = f"{name} needs the ROIs or the RPN of an R-CNN.*choose from KD, DIST, REVIEWKD"
    with pytest.raises(UserError, match=message):
        build_model(retina_cfg)


def test_nkd_needs_a_softmax(retina_cfg):
    retina_cfg.DISTILL.METHODS = ("NKD",)
    with pytest.raises(UserError, match="NKD needs a softmax"):
        build_model(retina_cfg)
