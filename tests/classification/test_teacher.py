import copy

import pytest
import torch
from torch import nn

from classification.models import MODELS, build_classifier, features_of
from classification.sources import source_of
from classification.teacher import ClassifierTeacher, build_model
from eakd_det.utils.errors import UserError
from eakd_det.utils.precision import Precision

from .batches import data_of

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def model_of(name):
    """A classifier whose batch norms have statistics and factors of their own."""
    torch.manual_seed(0)
    model = build_classifier(name, 10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return model


def norms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def prepared(model, layers=(), **options):
    teacher = ClassifierTeacher(copy.deepcopy(model), layers, fast=True, **options)
    teacher.prepare()
    return teacher


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"ShuffleV1", "ShuffleV2"}))
def test_every_model_gives_the_same_once_it_is_prepared(name):
    model = model_of(name)
    slow, fast = ClassifierTeacher(model), prepared(model)
    assert norms(fast.model) < norms(slow.model)
    if "wrn" not in name:  # which normalises before it convolves
        assert norms(fast.model) == 0
    expected, got = slow.outputs(IMAGES), fast.outputs(IMAGES)
    scale = expected.logits.abs().max().item()
    torch.testing.assert_close(got.logits, expected.logits, rtol=1e-4, atol=1e-4 * scale)
    torch.testing.assert_close(fast.logits(IMAGES), got.logits, rtol=1e-4, atol=1e-4 * scale)
    for a, b in zip(got.preactivations[1:], expected.preactivations[1:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * b.abs().max().item())
    torch.testing.assert_close(
        got.pooled, expected.pooled, rtol=1e-3, atol=1e-4 * expected.pooled.abs().max().item()
    )


def test_maps_that_are_compared_stay():
    model = model_of("torchvision:resnet18")
    layers = ("conv1", "layer1.0.conv1", "layer2", "layer3.0.conv2")
    fast = prepared(model, layers)
    assert norms(fast.model) == 3
    expected, got = (x.outputs(IMAGES) for x in (ClassifierTeacher(model, layers), fast))
    torch.testing.assert_close(got.preactivations, expected.preactivations, rtol=1e-3, atol=1e-4)
    assert norms(prepared(model).model) == 0


def test_features_are_those_of_the_modules_that_are_named():
    model = model_of("torchvision:resnet18")
    layers = ("relu", "layer1", "layer2")
    teacher = prepared(model, layers, precision=Precision("bfloat16"))
    expected = features_of(model.eval(), IMAGES, layers).maps
    got = teacher.outputs(IMAGES).preactivations
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == torch.bfloat16
        torch.testing.assert_close(a.float(), b, rtol=0.1, atol=0.1 * b.abs().max().item())


def _random_state(name):
    state = build_classifier(name, 10).state_dict()
    return {key: torch.rand_like(value.float()).to(value.dtype) for key, value in state.items()}


@pytest.mark.parametrize("key", ["MODEL", "TEACHER"])
@pytest.mark.parametrize("container", ["model", "state_dict", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "student.", "model."])
def test_checkpoints_of_other_training_codes(tmp_path, key, container, prefix):
    """Student and teacher of another run alike, as detectors' checkpoints."""
    state = _random_state("resnet8")
    content = {container: {prefix + name: value for name, value in state.items()}, "epoch": 3}
    torch.save(content, tmp_path / "a.pth")
    got = build_model("resnet8", str(tmp_path / "a.pth"), source_of(data_of("digits")), key=key)
    assert all(torch.equal(value, state[name]) for name, value in got.state_dict().items())


def test_a_file_of_both_networks(tmp_path):
    states = {"MODEL": _random_state("resnet8"), "TEACHER": _random_state("resnet14")}
    merged = {f"module.student.{name}": value for name, value in states["MODEL"].items()}
    merged |= {f"module.teacher.{name}": value for name, value in states["TEACHER"].items()}
    torch.save({"model": {**merged, "module.abfs.0.weight": torch.zeros(2)}}, tmp_path / "a.pth")
    for key, name in (("MODEL", "resnet8"), ("TEACHER", "resnet14")):
        got = build_model(name, str(tmp_path / "a.pth"), source_of(data_of("digits")), key=key)
        assert all(torch.equal(v, states[key][name]) for name, v in got.state_dict().items())


def test_weights_of_another_model_are_named(tmp_path):
    torch.save({"state_dict": _random_state("resnet8")}, tmp_path / "a.pth")
    with pytest.raises(UserError) as error:
        build_model("vgg8", str(tmp_path / "a.pth"), source_of(data_of("cifar10")), key="TEACHER")
    heading, missing, unexpected = str(error.value).splitlines()
    assert heading == f"TEACHER.WEIGHTS does not fit its model: {tmp_path / 'a.pth'}"
    assert "missing: 32 (block0.0.weight" in missing
    assert "unexpected: " in unexpected and "layer1.0.conv1.weight" in unexpected
