"""Models by name, models of timm and torchvision, and their features."""

import importlib.util

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from classification.models import build_classifier, features_of
from eakd_det.utils.errors import UserError

needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="timm is not installed"
)
NAMES = ["torchvision:resnet18", pytest.param("timm:resnet18", marks=needs_timm)]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_classifier("torchvision:resnet18", 10).eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64)


@pytest.mark.parametrize("name", ["resnet8", *NAMES])
@torch.no_grad()
def test_the_number_of_outputs_is_that_of_the_classes(name, images):
    assert build_classifier(name, 7).eval()(images).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt20", "no model 'resnt20'; did you mean resnet20"),
        ("torchvision:resnet1", "no such model. Similar names: resnet18"),
        pytest.param("timm:resnet1", "no such model", marks=needs_timm),
    ],
)
def test_unknown_names_are_refused(name, message):
    with pytest.raises(UserError, match=message):
        build_classifier(name, 10)


@pytest.mark.parametrize(
    "name", ["torchvision:resnet18", pytest.param("timm:resnet18", marks=needs_timm)]
)
def test_pretrained_weights_of_other_classes_are_refused_before_loading(name):
    with pytest.raises(UserError, match="resnet18 have 1000 classes, but the data have 10"):
        build_classifier(name, 10, pretrained=True)


@needs_timm
def test_timm_models_without_published_weights_are_refused():
    with pytest.raises(UserError, match="timm:resnet50t has no published weights"):
        build_classifier("timm:resnet50t", 1000, pretrained=True)


def test_our_models_have_no_pretrained_weights():
    with pytest.raises(UserError, match="resnet8 has no pretrained weights"):
        build_classifier("resnet8", 10, pretrained=True)


def test_missing_timm_is_reported(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    with pytest.raises(UserError, match="pip install timm"):
        build_classifier("timm:resnet18", 10)


@pytest.mark.parametrize("name", NAMES)
def test_features_are_the_outputs_of_the_named_modules(name, images):
    model = build_classifier(name, 10).eval()
    outputs = features_of(model, images, ("layer1", "layer2.0"), preactivations=True)
    assert [x.shape[1:] for x in outputs.maps] == [(64, 16, 16), (128, 8, 8)]
    assert_close(outputs.preactivations, outputs.maps)
    assert_close(outputs.logits, model(images))
    assert_close(model.fc(outputs.pooled), outputs.logits)
    outputs.maps[1].sum().backward()
    assert model.conv1.weight.grad.any()


def test_features_of_a_staged_classifier_need_no_layers(images):
    model = build_classifier("resnet8", 10).eval()
    outputs = features_of(model, images)
    assert_close(outputs.maps, model.forward_features(images).maps)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((), r"not \(\)\. .*layer1"),
        (("layer1", "layer9"), "not layer9.*layer4"),
        (("fc",), "fc outputs no map"),
    ],
)
def test_invalid_layers_are_refused(model, images, layers, message):
    with pytest.raises(UserError, match=message):
        features_of(model, images, layers)


def test_features_need_a_linear_layer(images):
    with pytest.raises(UserError, match="no linear layer"):
        features_of(nn.Sequential(nn.Conv2d(3, 4, 1)), images, ("0",))
