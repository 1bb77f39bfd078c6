import pytest
import torch

from eakd_det.modeling.teacher import build_teacher


def test_unknown_precision(distill_cfg):
    distill_cfg.TEACHER.PRECISION = "int8"
    with pytest.raises(ValueError, match="TEACHER.PRECISION: 'int8' is unknown"):
        build_teacher(distill_cfg)


def test_random_state_is_left_alone(distill_cfg):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    build_teacher(distill_cfg)
    assert torch.equal(torch.rand(3), expected)


def test_model_zoo_name(distill_cfg, tmp_path):
    distill_cfg.TEACHER.CONFIG_FILE = "COCO-Detection/faster_rcnn_R_101_FPN_3x.yaml"
    torch.save({"model": {}}, tmp_path / "empty.pth")
    distill_cfg.TEACHER.WEIGHTS = str(tmp_path / "empty.pth")
    with pytest.raises(ValueError, match=r"missing: \d\d\d .*backbone\.bottom_up"):
        build_teacher(distill_cfg)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("TEACHER.CONFIG_FILE", "", "TEACHER.CONFIG_FILE is empty"),
        ("TEACHER.WEIGHTS", "", "has no weights: set TEACHER.WEIGHTS"),
        ("TEACHER.CONFIG_FILE", "nowhere.yaml", "nowhere.yaml is neither a file nor"),
        ("TEACHER.WEIGHTS", "nowhere.pth", "TEACHER.WEIGHTS: nowhere.pth"),
    ],
)
def test_refused(distill_cfg, key, value, message):
    distill_cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=message):
        build_teacher(distill_cfg)


def test_weights_that_do_not_fit(distill_cfg, teacher_files, tmp_path):
    state = torch.load(teacher_files[1])["model"]
    state["extra.weight"] = torch.zeros(1)
    del state["roi_heads.box_head.fc1.weight"]
    state["roi_heads.box_head.fc1.bias"] = torch.zeros(3)
    torch.save({"model": state}, tmp_path / "partial.pth")
    distill_cfg.TEACHER.WEIGHTS = str(tmp_path / "partial.pth")
    with pytest.raises(ValueError, match="TEACHER.WEIGHTS does not fit") as error:
        build_teacher(distill_cfg)
    text = str(error.value)
    assert "missing: 1 (roi_heads.box_head.fc1.weight)" in text
    assert "unexpected: 1 (extra.weight)" in text
    assert "fc1.bias (3,) in the file, (32,) in the model" in text
