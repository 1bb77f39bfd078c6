import pytest
import torch

from tests.llm import conftest
from tests.llm.conftest import teacher_path, tokenizer  # noqa: F401  (fixtures)

small_cfg = conftest.cfg


@pytest.fixture
def cfg(small_cfg, device, monkeypatch):
    """The config of one step of plain gradient descent, on the device."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # Trainer would take all
    small_cfg.TRAINING.USE_CPU = device.type == "cpu"
    return small_cfg
