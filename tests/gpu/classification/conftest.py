import pytest

from tests.classification import conftest

small_cfg = conftest.cfg


@pytest.fixture
def cfg(small_cfg, device):
    """The config of a few steps on digits, on the device."""
    small_cfg.MODEL.DEVICE = str(device)
    return small_cfg
