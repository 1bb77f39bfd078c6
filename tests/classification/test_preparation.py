import copy
import logging

import pytest
import torch
from torch import nn

from classification.models import MODELS, build_classifier, features_of
from classification.preparation import Teacher
from eakd_det.modeling.teacher import winograd
from eakd_det.utils.precision import Precision

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


def prepared(model, *args, **kwargs):
    teacher = Teacher(copy.deepcopy(model), *args, **kwargs)
    teacher.prepare(IMAGES)
    return teacher


def line_of(caplog):
    (line,) = [r for r in caplog.records if r.name == "eakd_det.modeling.teacher.preparation"]
    return line


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"ShuffleV1", "ShuffleV2"}))
def test_every_model_says_the_same_once_it_is_prepared(name):
    model = model_of(name)
    slow, fast = Teacher(model), prepared(model, fast=True)
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


def test_maps_that_are_compared_stay(caplog):
    model = model_of("torchvision:resnet18")
    layers = ("conv1", "layer1.0.conv1", "layer2", "layer3.0.conv2")
    fast = prepared(model, layers, fast=True)
    assert norms(fast.model) == 3
    expected, got = (x.outputs(IMAGES) for x in (Teacher(model, layers), fast))
    torch.testing.assert_close(got.preactivations, expected.preactivations, rtol=1e-3, atol=1e-4)
    assert norms(prepared(model, fast=True).model) == 0


def test_preparation_is_in_place_and_reported_once(caplog):
    model = model_of("resnet8")
    teacher = Teacher(model, fast=True)
    assert not teacher.is_prepared and norms(teacher.model) == norms(model)
    with caplog.at_level(logging.INFO):
        teacher.prepare(IMAGES)
    assert teacher.model is model and teacher.is_prepared and norms(model) == 0
    assert not any(p.requires_grad for p in model.parameters()) and not model.training
    weight = model.layer2[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert line_of(caplog).levelname == "INFO"


def test_wide_convolutions_are_tiled(monkeypatch):
    monkeypatch.setattr(winograd, "IS_FASTER_HERE", True)
    model = model_of("resnet8x4")
    fast = prepared(model, fast=True)
    wide = [m for m in fast.model.modules() if type(m) is winograd.WinogradConv2d]
    assert len(wide) == 2 and not any(type(m) is winograd.WinogradConv2d for m in model.modules())
    images = IMAGES.repeat(16, 1, 1, 1)
    expected, got = Teacher(model).outputs(images), fast.outputs(images)
    torch.testing.assert_close(got.preactivations, expected.preactivations, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(got.logits, expected.logits, rtol=1e-4, atol=1e-4)


def test_a_difference_is_a_warning(caplog, monkeypatch):
    def spoil(model, keep):
        model.fc.bias.data += 0.01

    monkeypatch.setattr("classification.preparation.fold_batch_norms", spoil)
    prepared(model_of("resnet8"), fast=True)
    assert line_of(caplog).levelname == "WARNING"
    assert "0.01" in line_of(caplog).getMessage()


def test_nothing_is_prepared_without_an_option():
    assert Teacher(model_of("resnet8")).is_prepared


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16", "amp"])
def test_precisions(name, fast):
    model = model_of("resnet8")
    plain = Teacher(model).logits(IMAGES)
    teacher = prepared(model, fast=fast, precision=Precision(name, "bfloat16"))
    dtype = {"float32": torch.float32, "float16": torch.float16}.get(name, torch.bfloat16)
    logits, outputs = teacher.logits(IMAGES), teacher.outputs(IMAGES)
    assert logits.dtype == outputs.preactivations[2].dtype == dtype
    weights = torch.float32 if name == "amp" else dtype
    assert {p.dtype for p in teacher.model.parameters()} == {weights}
    assert (norms(teacher.model) == 0) == fast
    tolerance = {"float32": 1e-5, "float16": 1e-2}.get(name, 8e-2)
    torch.testing.assert_close(logits.float(), plain, rtol=tolerance, atol=tolerance)
    if name != "float32":
        assert not logits.float().equal(plain)


def test_a_named_precision_does_not_follow_the_students_autocast():
    model = model_of("resnet8")
    full, own = (prepared(model, fast=True, precision=Precision(x)) for x in ("float32", ""))
    outside = full.logits(IMAGES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert full.logits(IMAGES).equal(outside)
        assert own.logits(IMAGES).dtype == torch.bfloat16


def test_features_are_those_of_the_modules_that_are_named():
    model = model_of("torchvision:resnet18")
    layers = ("relu", "layer1", "layer2")
    teacher = prepared(model, layers, fast=True, precision=Precision("bfloat16"))
    expected = features_of(model.eval(), IMAGES, layers).maps
    got = teacher.outputs(IMAGES).preactivations
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == torch.bfloat16
        torch.testing.assert_close(a.float(), b, rtol=0.1, atol=0.1 * b.abs().max().item())
