"""Names, shapes and outputs of the released models, with weights filled by a fixed rule."""

import json
import math
from functools import cache

import pytest
import torch
import torchvision

from classification.models import MODELS
from classification.models.wrn import WideResNet
from tests.golden import FOLDER

NAMES = sorted(MODELS.keys() - {"ShuffleNetV1", "ShuffleNetV2"})
CIFAR = [name for name in NAMES if not name.startswith("imagenet_")]
IMAGENET = {
    "ResNet18": "imagenet_resnet18",
    "ResNet34": "imagenet_resnet34",
    "ResNet50": "imagenet_resnet50",
    "MobileNetV1": "imagenet_mobilenetv1",
}


@cache
def figures():
    if not FOLDER.is_dir():
        pytest.skip(f"no figures of the released code in {FOLDER}")
    return json.loads((FOLDER / "cifar_models.json").read_text())


def wave(shape, frequency, phase):
    steps = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(frequency * steps + phase).reshape(shape)


def fill(model, scales):
    """Fill the floating-point tensors of the state dict by the rule of the golden figures."""
    frequency = figures()["about"]["w_freq"]
    tensors = [(k, t) for k, t in model.state_dict().items() if t.is_floating_point()]
    for i, ((key, tensor), scale) in enumerate(zip(tensors, scales, strict=True)):
        values = scale * wave(tensor.shape, frequency, i)
        if key.endswith("running_var"):
            values = 1 + values.abs()
        elif key.endswith("weight") and tensor.dim() == 1:
            values = 1 + values
        tensor.copy_(values)


def shapes(model):
    return [[key, list(tensor.shape)] for key, tensor in model.state_dict().items()]


def check(tensor, expected):
    flat = tensor.flatten()
    got = torch.stack([flat.mean(), flat.square().mean().sqrt(), *flat[:4], *flat[-4:]])
    want = [expected["mean"], expected["rms"], *expected["first4"], *expected["last4"]]
    assert list(tensor.shape) == expected["shape"]
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=1e-8, atol=1e-8)


def test_every_released_model_is_there():
    assert set(figures()["models"]) == set(CIFAR)


@pytest.mark.parametrize("name", CIFAR)
@torch.no_grad()
def test_cifar_model(name):
    expected, about = figures()["models"][name], figures()["about"]
    model = MODELS[name](100).double().eval()
    assert shapes(model) == [entry[:2] for entry in expected["state_dict"]]
    assert sum(p.numel() for p in model.parameters()) == expected["num_parameters"]
    fill(model, expected["fill_scales"])
    images = wave(about["x_shape"], about["x_freq"], 0)
    outputs = model.forward_features(images, preactivations=True)
    torch.testing.assert_close(outputs.logits, model(images), rtol=1e-12, atol=1e-12)
    logits = torch.tensor(expected["logits"], dtype=torch.float64)
    torch.testing.assert_close(outputs.logits, logits, rtol=1e-8, atol=1e-8)
    features = expected["features"]
    check(outputs.pooled, features["pooled_feat"])
    for got, want in zip(outputs.maps, features["feats"], strict=True):
        check(got, want)
    if "preact_feats" in features:
        # The released code returns the stem after its activation here (a WRN's has none).
        stem = outputs.preactivations[0]
        outputs.preactivations[0] = stem if isinstance(model, WideResNet) else stem.relu()
        for got, want in zip(outputs.preactivations, features["preact_feats"], strict=True):
            check(got, want)


@pytest.mark.parametrize("name", IMAGENET)
@torch.no_grad()
def test_imagenet_model(name):
    expected = figures()["imagenet"][name]
    model = MODELS[IMAGENET[name]](1000).eval()
    assert shapes(model) == [entry[:2] for entry in expected["state_dict"]]
    assert sum(p.numel() for p in model.parameters()) == expected["num_parameters"]
    maps = model.forward_features(torch.zeros(1, 3, 224, 224)).maps
    want = expected["feature_shapes_1x3x224x224"]["feats"]
    assert [list(x.shape) for x in maps][-len(want) :][1:] == want[1:]


@torch.no_grad()
def test_imagenet_resnets_are_torchvisions():
    ours = MODELS["imagenet_resnet18"](1000).eval()
    theirs = torchvision.models.resnet18(num_classes=1000).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images))
