import logging

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn
from torch.nn import functional as F

from classification.models import build_classifier
from eakd_det.modeling.teacher import freeze, fuse_batch_norms, fuse_detector_norms


def _norms(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d)]


def _trained(model):
    """With statistics that are not those of a new model."""
    torch.manual_seed(0)
    for norm in _norms(model):
        norm.running_mean.normal_(0, 0.2)
        norm.running_var.uniform_(0.5, 1.5)
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.3, 0.7)
    return freeze(model)


# Norms that stay read a sum of maps, not one convolution.
@pytest.mark.parametrize(
    ("name", "size", "left"),
    [
        ("resnet8x4", 32, 0),
        ("wrn_16_1", 32, 7),
        ("vgg8", 32, 0),
        ("MobileNetV2", 32, 0),
        ("ShuffleNetV1", 32, 0),
        ("torchvision:resnet18", 64, 0),
    ],
)
def test_fused_classifiers_give_the_same(name, size, left):
    model = _trained(build_classifier(name, 10))
    images = torch.randn(2, 3, size, size)
    expected = model(images)
    fuse_batch_norms(model)
    assert len(_norms(model)) == left
    torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-5)


class _Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = Conv2d(3, 4, 3, norm=FrozenBatchNorm2d(4), activation=F.relu)
        self.group = Conv2d(4, 4, 3, norm=nn.GroupNorm(2, 4))
        self.rest = nn.Sequential(nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5), nn.ReLU())

    def forward(self, x):
        return self.rest(self.group(self.stem(x)))


def test_fused_detectors_give_the_same():
    model = _trained(_Detector())
    images = torch.randn(2, 3, 9, 9)
    expected = model(images)
    fuse_detector_norms(model)
    assert not _norms(model) and isinstance(model.group.norm, nn.GroupNorm)
    torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-5)


class _ActiveNorm(nn.BatchNorm2d):
    def forward(self, x):
        return F.relu(super().forward(x))


class _Shared(nn.Module):
    """A convolution that two read, one that is used twice, and a norm that also activates."""

    def __init__(self):
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.twice, self.twice_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.active = nn.Sequential(nn.Conv2d(3, 3, 1), _ActiveNorm(3))

    def forward(self, x):
        x = self.first(x)
        x = x + self.first_norm(x)
        x = self.twice_norm(self.twice(self.twice(x)))
        return self.active(x)


def test_norms_that_cannot_be_fused_stay():
    model = _trained(_Shared())
    images = torch.randn(2, 3, 5, 5)
    expected = model(images)
    fuse_batch_norms(model)
    assert len(_norms(model)) == 3
    assert torch.equal(model(images), expected)


def test_modules_whose_output_is_read_stay():
    model = _trained(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
    images = torch.randn(2, 3, 5, 5)
    expected = model[0](images)
    fuse_batch_norms(model, keep=["0"])
    assert torch.equal(model[0](images), expected)


class _Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        x = self.body(x)
        return self.norm(self.conv(x)) if x.mean() > -100 else x


def test_a_model_that_cannot_be_traced_keeps_some(caplog):
    model = _trained(_Branch())
    images = torch.randn(2, 3, 5, 5)
    expected = model(images)
    with caplog.at_level(logging.INFO):
        fuse_batch_norms(model)
    assert "_Branch keeps some batch norms, since it cannot be traced" in caplog.text
    assert _norms(model) == [model.norm]
    torch.testing.assert_close(model(images), expected)
