import pytest

from .common import build


@pytest.fixture
def model(teacher_cfg):
    return build(teacher_cfg, 0)


@pytest.fixture
def state(teacher_cfg):
    """The weights of another model of the same kind."""
    return build(teacher_cfg, 1).state_dict()
