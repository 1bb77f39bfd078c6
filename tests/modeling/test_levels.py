import logging
from types import SimpleNamespace

import pytest
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model

from eakd_det.modeling.levels import choose_levels, match_levels
from eakd_det.utils.errors import UserError

MATCHED = [("p2", "t2"), ("p3", "t3"), ("p4", "t4")]


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


def test_all_without_names():
    assert choose_levels(MATCHED, ()) == MATCHED


def test_names_are_the_student_s_in_any_order():
    assert choose_levels(MATCHED, ("p4", "p2")) == [("p2", "t2"), ("p4", "t4")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("p22", "'p22' is no feature map .* Did you mean 'p2'. They share p2, p3, p4."),
        ("t3", "DISTILL.LEVELS: 't3' is no feature map .* They share p2, p3, p4."),
    ],
)
def test_an_unknown_name(name, message):
    with pytest.raises(UserError, match=message):
        choose_levels(MATCHED, ("p2", name))
