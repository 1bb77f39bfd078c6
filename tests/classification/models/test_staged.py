"""Stages, image sizes, small batches and memory formats of every model family."""

import pytest
import torch
from torch.testing import assert_close

from classification.models import MODELS
from classification.models.resnet import BasicBlock, Bottleneck, ResNet
from classification.models.shufflenet import ShuffleNetV1
from tests.golden import golden

FAMILIES = [
    *("resnet8", "ResNet18", "wrn_16_1", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2"),
    *("imagenet_resnet18", "imagenet_mobilenetv1"),
]
SIDES = ["after_activation", "before_activation"]


def build(name):
    torch.manual_seed(0)
    return MODELS[name](10)


def make_images(name, number=2):
    size = 64 if name.startswith("imagenet_") else 32
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(1))


def run_stages(model, images):
    x = images
    for stage in range(model.num_stages):
        x = model.stage(stage, x)
    return model.head(x)


@pytest.mark.parametrize("emits", SIDES)
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_stages_and_head_equal_the_forward_pass(name, emits):
    model, images = build(name).double().eval(), make_images(name).double()
    logits = model(images)
    model.emits = emits
    assert_close(run_stages(model, images), logits, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_features_match_the_forward_pass(name):
    model, images = build(name).double().eval(), make_images(name).double()
    outputs = model.forward_features(images, preactivations=True)
    assert_close(outputs.logits, model(images), atol=1e-12, rtol=1e-12)
    assert_close(model.linear_layer()(outputs.pooled), outputs.logits)
    assert len(outputs.maps) == len(outputs.preactivations) == model.num_stages
    assert [x.shape for x in outputs.maps] == [x.shape for x in outputs.preactivations]
    assert model.forward_features(images).preactivations == []


@pytest.mark.parametrize("size", [28, 64])
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_other_sizes(name, size):
    logits = build(name).eval()(torch.randn(1, 3, size, size))
    assert logits.shape == (1, 10)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_of_one_trains_every_parameter(name):
    model = build(name).train()
    model(make_images(name, number=1)).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_channels_last_gives_the_same_logits(name):
    model, images = build(name).eval(), make_images(name)
    logits = model(images)
    model.to(memory_format=torch.channels_last)
    converted = model(images.to(memory_format=torch.channels_last))
    assert_close(converted, logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_resnet_of_any_width_and_depth(block):
    model = ResNet(10, channels=(4, 8, 12, 16, 20), blocks=(1, 2, 1, 3), block=block)
    maps = model.forward_features(torch.randn(2, 3, 16, 16)).maps
    assert [x.shape[1] for x in maps] == [4, 8, 12, 16, 20]
    assert [x.shape[2] for x in maps] == [16, 16, 8, 4, 2]


@pytest.mark.parametrize(
    ("prefix", "path", "model"),
    [
        ("hetero.models.0", "0.0.0.0", ResNet(10, channels=(4, 5, 6, 8), blocks=(1, 1, 1))),
        (
            "hetero.models.1",
            "1.1.1.1",
            ShuffleNetV1(10, channels=(24, 28, 32, 36), blocks=(1, 1, 1), groups=1),
        ),
    ],
    ids=["resnet", "shufflenet"],
)
@torch.no_grad()
def test_released_stages(prefix, path, model):
    """Narrow networks in training, stage by stage, as FCFD's code runs them."""
    arrays = golden("fcfd")
    weights = {key.removeprefix(f"{prefix}."): a for key, a in arrays.items() if prefix in key}
    counters = {key for key in model.state_dict() if key.endswith("num_batches_tracked")}
    assert weights.keys() | counters == model.state_dict().keys()
    model.double().train().load_state_dict(weights, strict=False)
    logits = run_stages(model, arrays["hetero.images"].double())
    assert_close(logits, arrays[f"hetero.s2t_t2s.logits.{path}"], atol=1e-8, rtol=1e-8)
