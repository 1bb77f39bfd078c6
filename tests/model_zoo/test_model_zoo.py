from pathlib import Path

import pytest

from eakd_det.config import load_config
from eakd_det.model_zoo import get_config_file
from eakd_det.modeling.teacher.build import teacher_config
from eakd_det.utils.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "name", ["COCO-Detection/EA-DKD-R18-R101.yaml", "Digits-Detection/Base.yaml"]
)
def test_a_config_of_this_repository(name):
    for key in (name, f"configs/{name}"):
        assert get_config_file(key) == str(ROOT / "configs" / name)


def test_bases_are_found(monkeypatch, tmp_path):
    """From any folder; here a base in another one."""
    monkeypatch.chdir(tmp_path)
    cfg = load_config(get_config_file("Fashion-Detection/EA-DKD-R18-R101.yaml"))
    assert cfg.DISTILL.METHODS == ("DKD",) and cfg.MODEL.FPN.NORM == "BN"


def test_a_teacher_that_a_config_names_is_found(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    cfg = load_config(get_config_file("Digits-Detection/EA-DKD-R18-R101.yaml"))
    assert cfg.TEACHER.CONFIG_FILE == "configs/Digits-Detection/Teacher-R101.yaml"
    assert teacher_config(cfg).MODEL.RESNETS.DEPTH == 101


def test_a_config_of_detectron2():
    path = get_config_file("COCO-Detection/faster_rcnn_R_101_FPN_3x.yaml")
    assert "detectron2" in path and Path(path).is_file()


def test_an_unknown_name():
    near = "COCO-Detection/EA-DKD-R18-R101.yaml"
    with pytest.raises(UserError, match=f"no config '{near[:-6]}9.yaml'.* nearest are .*{near}"):
        get_config_file(f"{near[:-6]}9.yaml")
