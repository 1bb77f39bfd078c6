import pytest

from tests.llm import conftest
from tests.llm.conftest import teacher_path, tokenizer  # noqa: F401  (fixtures)

small_cfg = conftest.cfg


@pytest.fixture
def cfg(small_cfg, device):
    """The config of one step of plain gradient descent, on the device."""
    small_cfg.TRAINING.USE_CPU = device.type == "cpu"
    return small_cfg
