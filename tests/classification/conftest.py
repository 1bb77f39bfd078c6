import pytest
import torch
from detectron2.utils.events import EventStorage

from classification.config import classification_config
from classification.models import build_classifier


@pytest.fixture
def cfg(tmp_path):
    """Config of a few steps on digits, with a saved teacher and no method."""
    cfg = classification_config()
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.NAME = "resnet8"
    cfg.DATASET.NAME = "digits"
    cfg.DATASET.TRAIN_SIZE = 33
    cfg.SOLVER.BATCH_SIZE = 8  # the last batch of an epoch has one image
    cfg.SOLVER.EPOCHS = 2
    cfg.SOLVER.STEPS = (1,)
    cfg.TEACHER.NAME = "resnet14"
    cfg.TEACHER.WEIGHTS = str(tmp_path / "teacher.pth")
    torch.manual_seed(7)
    torch.save({"model": build_classifier("resnet14", 10).state_dict()}, cfg.TEACHER.WEIGHTS)
    return cfg


@pytest.fixture
def storage():
    """Event storage for a training step; tests may set its iteration."""
    with EventStorage(0) as storage:
        yield storage
