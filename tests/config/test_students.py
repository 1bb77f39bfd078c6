import importlib.util

import pytest
from detectron2.modeling import build_backbone

from eakd_det.config.choices import as_options
from eakd_det.config.merge import load_config
from eakd_det.config.students import STUDENTS, student_choices
from eakd_det.model_zoo import get_config_file
from eakd_det.utils.errors import UserError

needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="timm is not installed"
)
REGNET = "timm:regnetx_004.pycls_in1k"
ALL = [*STUDENTS, pytest.param(REGNET, marks=needs_timm)]
SAME_RUN = ("OUTPUT_DIR", "TEACHER.CONFIG_FILE", "TEACHER.WEIGHTS")


def _with_student(name, student, *options):
    path = get_config_file(name)
    choices = student_choices(load_config(path, list(options)), student)
    return load_config(path, [*options, *as_options(choices)])


NAMES = {"r18": "R18-R101", "r50": "R50-R101", "mv2": "MV2-R50", REGNET: "regnetx_004-R101"}


@pytest.mark.parametrize("student", ALL)
@pytest.mark.parametrize("before", ALL)
def test_a_student_is_that_of_its_own_config(before, student):
    """Any of our Faster R-CNN configs becomes the one with that student."""
    got = _with_student(f"COCO-Detection/EA-DKD-{NAMES[before]}.yaml", student)
    expected = load_config(get_config_file(f"COCO-Detection/EA-DKD-{NAMES[student]}.yaml"))
    for cfg in (got, expected):
        cfg.merge_from_list([word for key in SAME_RUN for word in (key, "")])
    resnets = (got.MODEL.RESNETS, expected.MODEL.RESNETS)
    got.SOLVER.WEIGHT_DECAY = expected.SOLVER.WEIGHT_DECAY  # RegNet's config has its own
    if student not in ("r18", "r50"):  # has none
        got.MODEL.RESNETS = expected.MODEL.RESNETS
    if student == "r18":  # its blocks have no 1 x 1 convolution
        got.MODEL.RESNETS.STRIDE_IN_1X1 = expected.MODEL.RESNETS.STRIDE_IN_1X1
    assert got == expected, resnets


def test_its_own_student_changes_nothing():
    cfg = load_config(get_config_file("COCO-Detection/DKD-R18-R101.yaml"))
    assert student_choices(cfg, "r18") == []


@pytest.mark.parametrize("student", ALL)
def test_a_student_from_scratch_stays_from_scratch(student):
    cfg = _with_student("Digits-Detection/EA-DKD-R18-R101.yaml", student)
    assert (cfg.MODEL.WEIGHTS, cfg.MODEL.BACKBONE.FREEZE_AT) == ("", 0)
    assert cfg.MODEL.FPN.OUT_CHANNELS == 64
    backbone = build_backbone(cfg)
    assert set(cfg.MODEL.ROI_HEADS.IN_FEATURES) <= set(backbone.output_shape())


def test_a_narrow_resnet_becomes_a_plain_one():
    cfg = _with_student("Digits-Detection/Teacher-R101.yaml", "r50")
    resnets = cfg.MODEL.RESNETS
    assert (resnets.STEM_OUT_CHANNELS, resnets.WIDTH_PER_GROUP) == (64, 64)
    assert (resnets.DEPTH, resnets.RES2_OUT_CHANNELS) == (50, 256)


def test_a_retinanet_keeps_its_levels():
    cfg = _with_student("COCO-Detection/KD-RetinaNet-R18-R101.yaml", "r50")
    assert cfg.MODEL.BACKBONE.NAME == "build_retinanet_resnet_fpn_backbone"
    assert cfg.MODEL.FPN.IN_FEATURES == ["res3", "res4", "res5"]
    assert cfg.MODEL.WEIGHTS == "torchvision://resnet50"


@needs_timm
def test_a_retinanet_gets_a_backbone_of_timm():
    name = "COCO-Detection/KD-RetinaNet-R18-R101.yaml"
    cfg = _with_student(name, "timm:test_resnet")
    assert cfg.MODEL.BACKBONE.NAME == "build_retinanet_timm_fpn_backbone"
    assert cfg.MODEL.FPN.IN_FEATURES == ["res3", "res4", "res5"]
    assert cfg.MODEL.WEIGHTS == "timm://test_resnet"
    choices = {choice.key: choice.value for choice in student_choices(cfg, "r18")}
    assert choices["MODEL.BACKBONE.NAME"] == "build_retinanet_resnet_fpn_backbone"
    assert choices["MODEL.TIMM.NAME"] == ""


@needs_timm
def test_pixels_are_those_of_the_weights():
    cfg = _with_student("COCO-Detection/DKD-R18-R101.yaml", "timm:test_resnet")
    assert cfg.MODEL.PIXEL_MEAN == cfg.MODEL.PIXEL_STD == [127.5, 127.5, 127.5]
    assert cfg.INPUT.FORMAT == "RGB"


@needs_timm
def test_refusals_of_timm():
    faster = "COCO-Detection/DKD-R18-R101.yaml"
    with pytest.raises(UserError, match="timm:regnetx_04: .* Similar names: .*regnetx_004"):
        _with_student(faster, "timm:regnetx_04")
    with pytest.raises(UserError, match="timm:resnet50t has no published weights"):
        _with_student(faster, "timm:resnet50t")


def test_refusals():
    faster, retina = "COCO-Detection/DKD-R18-R101.yaml", "COCO-Detection/KD-RetinaNet-R18-R101.yaml"
    with pytest.raises(UserError, match="--student: 'r34' is unknown; choose from r18, r50, mv2."):
        _with_student(faster, "r34")
    with pytest.raises(
        UserError, match="--student mv2: a RetinaNet's backbone can be r18, r50 or timm:"
    ):
        _with_student(retina, "mv2")
    c4 = ("MODEL.BACKBONE.NAME", "build_resnet_backbone")
    with pytest.raises(UserError, match="--student r50: .* has the backbone build_resnet_backbone"):
        _with_student(faster, "r50", *c4)
