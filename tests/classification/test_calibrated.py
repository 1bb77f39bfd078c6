import os

import pytest
import torch
from torch import nn

from classification.analysis import Network, Networks
from classification.calibrated import fitted_temperature, network_to_save, write_calibrated
from classification.engine import build_distilled
from classification.models import build_classifier
from classification.sources import source_of
from classification.teacher import build_teacher
from eakd_det.analysis.calibration import Calibration, Quality
from eakd_det.utils.errors import UserError


def network_of(model):
    return Network("teacher", model.eval().requires_grad_(False))


@pytest.fixture
def teacher(cfg):
    return network_of(build_teacher(cfg).model)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "new" / "calibrated.pth")


@pytest.mark.parametrize("is_fast", [False, True])
def test_a_student_is_taught_logits_over_the_temperature(cfg, teacher, path, is_fast):
    before = {key: value.clone() for key, value in teacher.model.state_dict().items()}
    write_calibrated(teacher, 2.5, cfg, path)
    assert all(before[k].equal(v) for k, v in teacher.model.state_dict().items())
    images = torch.randn(4, 3, 8, 8)
    expected = teacher.model(images) / 2.5
    cfg.DISTILL.METHODS, cfg.TEACHER.WEIGHTS, cfg.TEACHER.FAST = ("KD",), path, is_fast
    torch.testing.assert_close(
        build_distilled(cfg).teacher.logits(images), expected, rtol=1e-4, atol=1e-5
    )
    saved = torch.load(path, weights_only=True)
    changed = {key for key in before if not before[key].equal(saved["model"][key])}
    assert changed == {"fc.weight", "fc.bias"} and saved["temperature"] == 2.5


@pytest.mark.parametrize(
    "name", ["vgg8", "wrn_16_1", "MobileNetV2", "ShuffleV1", "torchvision:mobilenet_v3_small"]
)
def test_other_architectures(cfg, path, name):
    cfg.DATASET.NAME = "digits"
    network = network_of(build_classifier(name, 10))
    write_calibrated(network, 0.5, cfg, path)
    cfg.TEACHER.NAME, cfg.TEACHER.WEIGHTS = name, path
    images = torch.randn(2, 3, 8, 8)
    expected = 2 * network.model(images)
    torch.testing.assert_close(build_teacher(cfg).logits(images), expected, rtol=1e-4, atol=1e-4)


def test_class_names_stay(cfg, teacher, path, monkeypatch):
    monkeypatch.setattr(source_of(cfg.DATASET), "names", tuple("abcdefghij"))
    write_calibrated(teacher, 2.5, cfg, path)
    assert torch.load(path, weights_only=True)["class_names"] == list("abcdefghij")


def test_a_network_without_a_last_linear_layer_is_refused(cfg, path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 10), nn.Softmax(dim=1))
    with pytest.raises(UserError, match="teacher .Sequential. does not end with a linear layer"):
        write_calibrated(network_of(model), 0.1, cfg, path)
    with pytest.raises(UserError, match="has no linear layer"):
        write_calibrated(network_of(nn.Flatten()), 2.0, cfg, path)
    assert not os.path.exists(path)


def test_a_network_with_another_normalisation_is_refused(cfg, teacher, path):
    teacher.model.register_forward_pre_hook(lambda _, args: (args[0] * 3 + 1,))
    with pytest.raises(UserError, match="another normalisation"):
        write_calibrated(teacher, 2.0, cfg, path)
    assert not os.path.exists(path)


@pytest.mark.parametrize("temperature", [0.05, 20.0])
def test_a_temperature_at_its_bound_is_refused(teacher, temperature):
    quality = Quality(1.0, None, 1.0)
    found = Calibration(temperature, (1.0, 1.0), quality, quality)
    with pytest.raises(UserError, match="teacher, .* is at the bound"):
        fitted_temperature(teacher, found)


def test_the_network_to_save(cfg, teacher):
    student = Network("a", teacher.model)
    assert network_to_save(Networks(cfg, teacher, [student] * 2)) is teacher
    assert network_to_save(Networks(cfg, None, [student])) is student
    with pytest.raises(UserError, match="several runs and no teacher"):
        network_to_save(Networks(cfg, None, [student] * 2))
