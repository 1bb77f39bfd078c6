"""The tools train a few steps of the demo's and the tiny configs, as a user calls them."""

import re
import sys

import pytest
import torch
from detectron2.modeling import build_model

from eakd_det.config.merge import load_config
from eakd_det.data.datasets.digits import generate_digits
from tests.conftest import ROOT

DETECTORS = ROOT / "configs" / "Digits-Detection"


@pytest.fixture
def call(call_tool):
    """Calls a tool in an interpreter of its own, since CUDA does not survive a fork; its output."""

    def call(name, *arguments):
        code, out, err = call_tool(name, *arguments, launcher=(sys.executable,))
        assert code == 0, out + err
        return out + err

    return call


def shorten(name, folder, changes):
    """Copy the configs of a folder of configs/ with other values, by which models train briefly."""
    copies = folder / "configs" / name
    copies.mkdir(parents=True)
    for path in (ROOT / "configs" / name).glob("*.yaml"):
        text = path.read_text()
        for pattern, value in changes.items():
            text = re.sub(pattern, value, text)
        (copies / path.name).write_text(text)


def test_train_net(call, device, tmp_path):
    """The demo's student learns from its R101, in float16, and is evaluated."""
    generate_digits(str(tmp_path / "data" / "digits_det"), num_scenes={"train": 16, "val": 2})
    teacher = load_config(str(DETECTORS / "Teacher-R101.yaml"))
    teacher.MODEL.DEVICE = "cpu"
    torch.save({"model": build_model(teacher).state_dict()}, tmp_path / "teacher.pth")
    out = call(
        "train_net.py",
        *("--config-file", str(DETECTORS / "EA-DKD-R18-R101.yaml"), "MODEL.DEVICE", device.type),
        *("TEACHER.WEIGHTS", str(tmp_path / "teacher.pth"), "OUTPUT_DIR", "run"),
        *("SOLVER.MAX_ITER", "3", "SOLVER.AMP.ENABLED", str(device.type == "cuda")),
    )
    assert "loss_dkd" in out
    assert (tmp_path / "run" / "result.json").exists()


def test_train_classifier(call, device, tmp_path):
    """The teacher is trained first."""
    shorten("Digits", tmp_path, {"EPOCHS: 8": "EPOCHS: 2", r"\(5, 7\)": "(1,)"})
    options = ("MODEL.DEVICE", device.type, "DATASET.TRAIN_SIZE", "128", "OUTPUT_DIR", "run")
    call("train_classifier.py", "--config-file", "configs/Digits/EA-KD.yaml", *options)
    saved = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)
    assert all(x.isfinite().all() for x in saved["model"].values())


def test_train_lm(call, device, tmp_path, monkeypatch):
    """Teacher and start are trained first."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # Trainer would take all
    few = {r"MAX_STEPS: \d+": "MAX_STEPS: 2", r"TRAIN_SIZE: \d+": "TRAIN_SIZE: 100"}
    shorten("LLM/tiny", tmp_path, few)
    options = ["TRAINING.MAX_STEPS", "2", "DATASET.TRAIN_SIZE", "100"]
    options += ["TRAINING.USE_CPU", str(device.type == "cpu")]
    out = call("train_lm.py", "--config-file", "configs/LLM/tiny/EA-KD.yaml", *options)
    assert re.search(r"output/LLM/tiny/EA-KD: loss [\d.]+, \d+ seconds", out)
