import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.data import MetadataCatalog

import eakd_det
from eakd_det.config import load_config
from eakd_det.data.datasets.digits import NAMES
from eakd_det.utils.errors import UserError

from ..tools.test_train_net import teacher_folder

EXPECTED = {"AP", "AP50", "AP75"}


@pytest.fixture
def config(run_cfg, tmp_path, monkeypatch):
    """Path of a config without a teacher and a folder, in which the test runs."""
    run_cfg.OUTPUT_DIR = "./output"
    monkeypatch.chdir(tmp_path)
    Path("short.yaml").write_text(run_cfg.dump())
    return "short.yaml"


@pytest.fixture
def teacher(run_cfg, tmp_path):
    folder = teacher_folder(run_cfg, tmp_path / "teacher_run")
    path = Path(folder, "model_final.pth")
    torch.save({**torch.load(path, weights_only=True), "class_names": list(NAMES)}, path)
    return folder


def _files(name):
    path = MetadataCatalog.get(name).json_file
    return path, str(Path(path).parents[1] / Path(path).stem)


def test_it_returns_the_student(config, teacher, scenes):
    train, val = map(_files, scenes)
    options = {"SOLVER.IMS_PER_BATCH": 3, "DISTILL.METHODS": ("KD",)}
    result = eakd_det.distill(
        config, teacher=teacher, train=train, val=val, epochs=2, options=options
    )
    assert result.metrics["bbox"].keys() >= EXPECTED
    assert result.output_dir == "output/tiny_digits-train/short"
    assert result.config_file == f"{result.output_dir}/student.yaml"
    assert result.weights == f"{result.output_dir}/model_best.pth"
    cfg = load_config(f"{result.output_dir}/config.yaml")
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH, cfg.DISTILL.METHODS) == (4, 3, ("KD",))
    assert cfg.TEACHER.WEIGHTS == f"{teacher}/model_final.pth"
    boxes = result.predictor(str(Path(val[1], "00001.png")))
    assert boxes.has("pred_classes") and result.predictor is result.predictor
    with pytest.raises(UserError, match="holds a run"):
        eakd_det.distill(config, teacher=teacher, train=train, epochs=2)


def test_registered_datasets_without_validation(config, scenes):
    """The config's DATASETS.TEST is not that of other training data."""
    options = {"SOLVER.MAX_ITER": 1}
    result = eakd_det.distill(config, train=scenes[0], output_dir="here", options=options)
    assert (result.metrics, result.weights) == ({}, "here/model_final.pth")
    saved = json.loads(Path("here/run.json").read_text())
    assert len(saved["starts"]) == 1
    result = eakd_det.distill(
        config, train=scenes[0], val=scenes[1], output_dir="here", overwrite=True, options=options
    )
    assert result.metrics["bbox"].keys() >= EXPECTED


def test_the_command_line_and_the_call_train_the_same(config, teacher, scenes, call_tool):
    train = _files(scenes[0])
    command = ["--config-file", config, "--teacher", teacher, "--epochs", "1"]
    command += ["--train-json", train[0], "--train-images", train[1], "OUTPUT_DIR", "of_tool"]
    code, out, err = call_tool("train_net.py", *command)
    assert code == 0, out + err
    eakd_det.distill(
        Path(config), teacher=Path(teacher), train=train, epochs=1, output_dir="of_call"
    )
    ours, theirs = (
        torch.load(f"{folder}/model_final.pth", weights_only=True)["model"]
        for folder in ("of_call", "of_tool")
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_refusals(config):
    with pytest.raises(UserError, match="The model zoo has no config 'COCO-Detection/EA-DKD-R18'"):
        eakd_det.distill("COCO-Detection/EA-DKD-R18")
    with pytest.raises(UserError, match="lazy.py: distill\\(\\) takes YAML configs"):
        eakd_det.distill("lazy.py")
    with pytest.raises(UserError, match="epochs: 0 is less than 1."):
        eakd_det.distill(config, epochs=0)
    with pytest.raises(UserError, match="did you mean SOLVER.BASE_LR?"):
        eakd_det.distill(config, options={"SOLVER.BASELR": 0.1})


def test_the_package_imports_nothing_until_it_is_used():
    code = "import sys, eakd_det; assert not {'torch', 'detectron2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'distil'"):
        _ = eakd_det.distil
