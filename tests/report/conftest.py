import argparse
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from classification.config import classification_config
from classification.engine import ClassifierTrainer
from classification.models import build_classifier
from eakd_det.engine.launch import set_up


@pytest.fixture(scope="session")
def classifier_runs(tmp_path_factory):
    """The folders of two trainings on digits, EA-KD and KD, of two epochs of 20 iterations."""
    root = tmp_path_factory.mktemp("runs")
    torch.manual_seed(7)
    torch.save({"model": build_classifier("resnet14", 10).state_dict()}, root / "teacher.pth")
    folders = []
    for name in ("EA-KD", "KD"):
        cfg = classification_config()
        cfg.OUTPUT_DIR = str(root / name)
        cfg.MODEL.DEVICE = "cpu"
        cfg.MODEL.NAME = "resnet8"
        cfg.TEACHER.NAME, cfg.TEACHER.WEIGHTS = "resnet14", str(root / "teacher.pth")
        cfg.DATASET.NAME, cfg.DATASET.TRAIN_SIZE = "digits", 160
        cfg.SOLVER.BATCH_SIZE, cfg.SOLVER.EPOCHS = 8, 2
        cfg.DISTILL.METHODS, cfg.DISTILL.EA.ENABLED = ("KD",), name.startswith("EA-")
        cfg.freeze()
        arguments = {"config_file": "", "eval_only": False, "resume": False, "wandb": None}
        set_up(cfg, argparse.Namespace(**arguments), cfg.OUTPUT_DIR)
        ClassifierTrainer(cfg).fit()
        folders.append(Path(cfg.OUTPUT_DIR))
    return folders


@pytest.fixture
def write_run(tmp_path):
    """Write the files of a run with a config; return its folder."""

    def write(name, cfg, rows=(), **files):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(cfg if isinstance(cfg, str) else cfg.dump())
        rows = rows or [{"iteration": 19, "total_loss": 2.5, "time": 0.5}]
        (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for stem, content in files.items():
            (folder / f"{stem}.json").write_text(json.dumps(content))
        return folder

    return write


@pytest.fixture
def save_picture():
    """Saves a wide picture under a path."""

    def save(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").resize((2400, 600)).convert("RGB").save(path)

    return save
