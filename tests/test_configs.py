"""The YAML files of configs/."""

from pathlib import Path

import pytest
from detectron2.config import get_cfg
from detectron2.model_zoo import get_checkpoint_url, get_config_file

from eakd_det.config import load_config

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "configs").rglob("*.yaml"))
COCO = ROOT / "configs" / "COCO-Detection"


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_config_loads(path):
    cfg = load_config(str(path))
    assert path.stem == "Base" or path.stem in cfg.OUTPUT_DIR
    assert bool(cfg.DISTILL.METHODS) == ("KD-" in path.stem)
    assert path.stem.startswith("EA-") == cfg.DISTILL.EA.ENABLED


@pytest.mark.parametrize("name", ["Base", "Student-R18", "Teacher-R101"])
@pytest.mark.parametrize("folder", ["COCO-Detection", "Digits-Detection"])
def test_stock_configs_have_no_key_of_ours(folder, name):
    path = ROOT / "configs" / folder / f"{name}.yaml"
    if path.exists():  # COCO's teacher is the model zoo's
        get_cfg().merge_from_file(str(path))


@pytest.mark.parametrize("name", ["KD", "EA-KD", "DKD", "EA-DKD"])
def test_coco_recipe(name):
    cfg = load_config(str(COCO / f"{name}-R18-R101.yaml"))
    solver = cfg.SOLVER
    assert (solver.IMS_PER_BATCH, solver.BASE_LR) == (8, 0.01)
    assert (solver.MAX_ITER, tuple(solver.STEPS)) == (180000, (120000, 160000))
    assert cfg.DISTILL.METHODS == (name.removeprefix("EA-"),)
    assert cfg.DISTILL.KD.TEMPERATURE == 1.0 or "DKD" in name
    if "DKD" in name:
        node = cfg.DISTILL.DKD
        assert (node.ALPHA, node.BETA, node.TEMPERATURE) == (1.0, 0.25, 1.0)
    if name.startswith("EA-"):
        assert cfg.DISTILL.EA.TEMPERATURE == 4.0
    assert cfg.INPUT.FORMAT == "RGB"
    assert cfg.MODEL.PIXEL_MEAN == [123.675, 116.28, 103.53]
    assert cfg.MODEL.PIXEL_STD == [58.395, 57.12, 57.375]


def test_coco_teacher_is_the_model_zoo_s():
    cfg = load_config(str(COCO / "EA-DKD-R18-R101.yaml"))
    name = "COCO-Detection/faster_rcnn_R_101_FPN_3x.yaml"
    assert cfg.TEACHER.CONFIG_FILE == name
    get_config_file(name)  # raises where it does not exist
    published = get_checkpoint_url(name).rsplit("detectron2/", 1)[1]
    assert f"detectron2://{published}" == cfg.TEACHER.WEIGHTS
