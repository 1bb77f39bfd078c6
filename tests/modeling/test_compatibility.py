"""Pairs of student and teacher that are refused before the first step."""

import pytest
from detectron2.modeling import build_model

from tests.conftest import RETINA, replace_teacher


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True],
            "student is a .* with a sigmoid classifier and the teacher .* with a softmax "
            "classifier: set MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE False in the student's config",
        ),
        (["DISTILL.METHODS", ("DKT",)], "DISTILL.METHODS: 'DKT' is unknown; choose from KD, DKD"),
        (["INPUT.FORMAT", "L"], "The student reads L images and the teacher BGR"),
        (["DISTILL.EA.MODE", "half"], "DISTILL.EA.MODE: 'half' is unknown; choose from full"),
        (
            ["DISTILL.EA.BACKGROUND", "ignored", "DISTILL.EA.ENABLED", False],
            "DISTILL.EA.BACKGROUND ignored has no effect with DISTILL.EA.ENABLED False: set that",
        ),
    ],
)
def test_refused(distill_cfg, options, message):
    distill_cfg.merge_from_list(options)
    with pytest.raises(ValueError, match=message):
        build_model(distill_cfg)


C4 = ["MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.RESNETS.OUT_FEATURES", ["res4"]]
C4 += ["MODEL.ROI_HEADS.NAME", "Res5ROIHeads", "MODEL.ROI_HEADS.IN_FEATURES", ["res4"]]
C4 += ["MODEL.RPN.IN_FEATURES", ["res4"], "MODEL.ANCHOR_GENERATOR.SIZES", [[32]]]
RETINANET = [x for pair in RETINA.items() for x in pair]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True], "USE_SIGMOID_CE False in TEACHER.CONFIG"),
        (C4, "teacher a Res5ROIHeads R-CNN .*StandardROIHeads on an FPN"),
        (RETINANET, "teacher a RetinaNet: set MODEL.META_ARCHITECTURE GeneralizedRCNN in TEACHER"),
    ],
)
def test_refused_teacher(distill_cfg, teacher_cfg, tmp_path, options, message):
    replace_teacher(distill_cfg, teacher_cfg, options, tmp_path)
    with pytest.raises(ValueError, match=message):
        build_model(distill_cfg)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["DISTILL.KD.STANDARDIZE", True],
            "DISTILL.KD.STANDARDIZE removes the mean over an anchor.* set it to False",
        ),
        (
            ["DISTILL.METHODS", ("DKD",)],
            "DKD needs a softmax, but a RetinaNet has a sigmoid .* choose from KD, DIST, REVIEWKD",
        ),
        (
            ["MODEL.ANCHOR_GENERATOR.SIZES", [[8], [24], [32], [48], [64]]],
            "anchors are not the teacher's",
        ),
    ],
)
def test_refused_retinanet(retina_cfg, options, message):
    retina_cfg.merge_from_list(options)
    with pytest.raises(ValueError, match=message):
        build_model(retina_cfg)


def test_a_retinanet_learns_logits_of_a_retinanet_alone(retina_cfg, teacher_files):
    retina_cfg.TEACHER.CONFIG_FILE, retina_cfg.TEACHER.WEIGHTS = teacher_files
    with pytest.raises(ValueError, match="two RetinaNets, but the teacher is a StandardROIHeads"):
        build_model(retina_cfg)


@pytest.mark.parametrize(("student", "teacher"), [(1, 3), (3, 3), (1, 1)])
def test_a_warning_of_unused_stages_of_a_cascade(
    distill_cfg, teacher_cfg, tmp_path, caplog, student, teacher
):
    cascade = ["MODEL.ROI_HEADS.NAME", "CascadeROIHeads"]
    cascade += ["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True]
    replace_teacher(distill_cfg, teacher_cfg, cascade if teacher == 3 else [], tmp_path)
    distill_cfg.merge_from_list(cascade if student == 3 else [])
    build_model(distill_cfg)
    told = [
        r for r in caplog.records if "a cascade of 3 stages, and the student has 1" in r.message
    ]
    assert len(told) == (student < teacher)
