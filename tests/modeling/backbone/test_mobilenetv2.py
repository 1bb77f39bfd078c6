import pytest
import torch
import torchvision
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model

from eakd_det.checkpoint.checkpointer import SafeCheckpointer
from eakd_det.modeling.backbone.mobilenetv2 import LEVELS, MobileNetV2


@pytest.fixture
def mobile_cfg(stock_cfg):
    cfg = stock_cfg
    cfg.MODEL.BACKBONE.NAME = "build_mobilenetv2_fpn_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.FPN.IN_FEATURES = ["m2", "m3", "m4", "m5"]
    return cfg


@pytest.fixture(scope="module")
def theirs():
    """torchvision's model with random weights and running statistics."""
    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v2().eval()
    for norm in [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]:
        norm.running_mean.uniform_(-0.2, 0.2)
        norm.running_var.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_features_equal_torchvision(mobile_cfg, theirs, tmp_path, norm):
    torch.save(theirs.state_dict(), tmp_path / "mobilenet.pth")
    mobile_cfg.MODEL.RESNETS.NORM = norm
    model = build_model(mobile_cfg).eval()
    SafeCheckpointer(model).load(str(tmp_path / "mobilenet.pth"))
    x = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = model.backbone.bottom_up(x)
        y = x
        for i, block in enumerate(theirs.features[:-1]):
            y = block(y)
            for name, (last, channels, stride) in LEVELS.items():
                if i == last:
                    torch.testing.assert_close(ours[name], y, rtol=1e-4, atol=1e-5)
                    assert ours[name].shape == (2, channels, 64 // stride, 96 // stride)
    assert list(ours) == ["m2", "m3", "m4", "m5"]
    shapes = model.backbone.bottom_up.output_shape()
    assert {name: (s.channels, s.stride) for name, s in shapes.items()} == {
        name: (channels, stride) for name, (_, channels, stride) in LEVELS.items()
    }


def test_the_fpn_has_strides_4_to_64(mobile_cfg):
    shapes = build_model(mobile_cfg).backbone.output_shape()
    assert [s.stride for s in shapes.values()] == [4, 8, 16, 32, 64]


@pytest.mark.parametrize(("freeze_at", "first_trained"), [(0, 0), (1, 1), (2, 4), (5, 18)])
def test_freeze_at(freeze_at, first_trained):
    model = MobileNetV2(norm="BN", out_features=["m5"], freeze_at=freeze_at)
    for i, block in enumerate(model.features):
        trained = [p.requires_grad for p in block.parameters()]
        assert all(trained) if i >= first_trained else not any(trained)
        frozen = [m for m in block.modules() if isinstance(m, FrozenBatchNorm2d)]
        assert bool(frozen) == (i < first_trained)


def test_one_level_alone():
    """Nothing is computed, or waits for a gradient, after the last level."""
    model = MobileNetV2(norm="BN", out_features=["m3"])
    assert len(model.features) == LEVELS["m3"][0] + 1
    assert list(model(torch.zeros(1, 3, 64, 64))) == ["m3"]
    assert list(model.output_shape()) == ["m3"]


def test_a_resnet_teaches_it(distill_cfg, mobile_cfg, batch, storage):
    mobile_cfg.DISTILL.METHODS = ("DKD", "REVIEWKD")
    losses = build_model(mobile_cfg)(batch)
    sum(losses.values()).backward()
    assert losses["loss_dkd"] > 0
    assert losses["loss_reviewkd"] > 0
