"""Pairs of student and teacher that are refused before the first step."""

import logging
from types import SimpleNamespace

import pytest
from detectron2.data import MetadataCatalog
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model

from eakd_det.modeling.compatibility import match_levels
from eakd_det.utils.errors import UserError
from tests.conftest import RETINA, replace_teacher


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL.ROI_HEADS.NUM_CLASSES", 7], "The student has 7 classes and the teacher 5"),
        (
            ["MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True],
            "student is a .* with a sigmoid classifier and the teacher .* with a softmax "
            "classifier: set MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE False in the student's config",
        ),
        (["DISTILL.METHODS", ("DKT",)], "DISTILL.METHODS: 'DKT' is unknown; choose from KD, DKD"),
        (["INPUT.FORMAT", "L"], "The student reads L images and the teacher BGR"),
        (["DISTILL.EA.MODE", "half"], "DISTILL.EA.MODE: 'half' is unknown; choose from full"),
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
            ["MODEL.RETINANET.NUM_CLASSES", 3],
            "has 3 classes and the teacher 10: set MODEL.RETINANET",
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


def test_levels_are_matched_by_stride(retina_cfg, teacher_files, caplog):
    """p2 of the teacher and p7 of the student have no counterpart: the others are compared."""
    retina_cfg.TEACHER.CONFIG_FILE, retina_cfg.TEACHER.WEIGHTS = teacher_files
    retina_cfg.DISTILL.METHODS = ("REVIEWKD",)
    retina_cfg.DISTILL.EA.ENABLED = False
    with caplog.at_level(logging.INFO):
        model = build_model(retina_cfg)
    assert [(a, b) for a, b in model.maps.levels] == [(p, p) for p in ("p3", "p4", "p5", "p6")]
    message = (
        "Not compared: the student's p7 (stride 128) and the teacher's p2 (stride 4), without a "
        "counterpart"
    )
    assert message in caplog.text


def _model_of(**strides):
    backbone = SimpleNamespace(output_shape=lambda: {n: ShapeSpec(stride=s) for n, s in shapes})
    shapes = strides.items()
    return SimpleNamespace(backbone=backbone)


def test_levels_without_a_common_stride_are_paired_in_order(caplog):
    student, teacher = _model_of(p3=8, p2=4), _model_of(c5=32, c4=16)
    with caplog.at_level(logging.INFO):
        levels = match_levels(student, teacher)
    assert levels == [("p2", "c4"), ("p3", "c5")]
    assert "in order, since none has the same stride: the student's p2 (stride 4)" in caplog.text


def test_of_two_levels_with_a_stride_the_first_is_compared():
    student, teacher = _model_of(p4=16, p5=32), _model_of(p4=16, p5=32, p5_2=32)
    assert match_levels(student, teacher) == [("p4", "p4"), ("p5", "p5")]


def test_another_number_of_levels_without_a_common_stride():
    message = (
        r"the student has p2 \(stride 4\) and the teacher c4 \(stride 16\) and c5 \(stride 32\): "
        "give both backbones a level of the same stride"
    )
    with pytest.raises(UserError, match=message):
        match_levels(_model_of(p2=4), _model_of(c5=32, c4=16))


def test_names_of_classes_that_are_not_known(distill_cfg):
    """The dataset of the student, then the checkpoint and the dataset of the teacher."""
    distill_cfg.DISTILL.CLASSES = ("a", ("b", "c"))
    with pytest.raises(UserError, match="the student has 5 classes .* training data name 0"):
        build_model(distill_cfg)
    MetadataCatalog.get("of_student").thing_classes = list("abcde")
    distill_cfg.DATASETS.TRAIN = ("of_student",)
    try:
        with pytest.raises(UserError, match="names of the teacher's 5 classes are not known"):
            build_model(distill_cfg)
    finally:
        MetadataCatalog.remove("of_student")


@pytest.mark.parametrize(("method", "warnings"), [("KD", 0), ("DKD", 1)])
def test_one_class(distill_cfg, teacher_cfg, tmp_path, caplog, method, warnings):
    one = ["MODEL.ROI_HEADS.NUM_CLASSES", 1]
    replace_teacher(distill_cfg, teacher_cfg, one, tmp_path)
    distill_cfg.merge_from_list([*one, "DISTILL.METHODS", (method,)])
    build_model(distill_cfg)
    told = [r for r in caplog.records if "one foreground class" in r.getMessage()]
    assert len(told) == warnings
    if warnings:
        assert 'NCKD is 0 and BETA without effect; DISTILL.METHODS ("KD",)' in told[0].getMessage()


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
