"""Backbones of timm: levels, strides, layouts, frozen stages and norms."""

import importlib.util

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import FPN, build_model
from torch import nn

from eakd_det.config.defaults import add_distill_config
from eakd_det.modeling.backbone.timm import TimmBackbone
from eakd_det.modeling.backbone.timm_maps import LEVELS
from eakd_det.utils.errors import UserError

timm = pytest.importorskip("timm")

# Convolutions with batch norms; with timm's BatchNormAct2d; with LayerNorm; with another class of
# features_only; with the layout (N, H, W, C).
NAMES = ["test_resnet", "test_byobnet", "test_convnext", "test_efficientnet", "test_mambaout"]
SWIN = "swin_tiny_patch4_window7_224"


def _timm_cfg(cfg, name="test_resnet"):
    cfg.MODEL.BACKBONE.NAME = "build_timm_fpn_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.TIMM.NAME = name
    return cfg


def _trained(model):
    """Names of the children of a features_only model that have trained parameters."""
    return {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", [*NAMES, SWIN])
def test_maps_are_those_of_timm(name):
    torch.manual_seed(0)
    model = TimmBackbone(name, out_features=list(LEVELS)).eval()
    x = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        maps, theirs = model(x), model.features(x)
    assert list(maps) == list(LEVELS)
    shapes = model.output_shape()
    for (level, y), z in zip(maps.items(), theirs, strict=True):
        stride, channels = LEVELS[level], shapes[level].channels
        assert y.shape == (2, channels, 64 // stride, 96 // stride)
        assert shapes[level].stride == stride
        assert torch.equal(y, z if z.shape == y.shape else z.permute(0, 3, 1, 2))


def test_the_random_state_is_that_of_timm_alone():
    torch.manual_seed(0)
    model = TimmBackbone("test_convnext", out_features=list(LEVELS))
    torch.manual_seed(0)
    theirs = timm.create_model("test_convnext", features_only=True)
    ours = model.features.state_dict()
    assert ours.keys() == theirs.state_dict().keys()
    assert all(torch.equal(ours[key], value) for key, value in theirs.state_dict().items())


@pytest.mark.parametrize(
    ("name", "freeze_at", "frozen"),
    [
        ("test_resnet", 0, []),
        ("test_resnet", 1, ["conv1", "bn1"]),
        ("test_resnet", 2, ["conv1", "bn1", "layer1"]),
        ("test_resnet", 4, ["conv1", "bn1", "layer1", "layer2", "layer3"]),
        ("test_convnext", 1, ["stem_0", "stem_1"]),  # without a map of stride 2
        ("test_convnext", 2, ["stem_0", "stem_1", "stages_0"]),
        ("test_resnet", 5, ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"]),
    ],
)
def test_freeze_at(name, freeze_at, frozen):
    model = TimmBackbone(name, out_features=list(LEVELS), freeze_at=freeze_at).features
    children = {
        x.split(".")[0] for x, _ in timm.create_model(name, features_only=True).named_parameters()
    }
    assert _trained(model) == children - set(frozen)
    for child, module in model.named_children():
        norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
        assert not (child in frozen and norms)
        frozen_norms = [m for m in module.modules() if isinstance(m, FrozenBatchNorm2d)]
        assert child in frozen or not frozen_norms


def test_stages_that_are_not_registered_in_order_are_frozen():
    """Twins lists the patch embeddings of all stages before their blocks."""
    model = TimmBackbone("twins_svt_small", out_features=list(LEVELS), freeze_at=2)
    frozen = [n for n, p in model.features.named_parameters() if not p.requires_grad]
    stages = {name.split(".")[2] for name in frozen}
    assert stages == {"0"}
    assert any("patch_embeds" in name for name in frozen)


def test_a_level_alone_trains_what_it_depends_on():
    model = TimmBackbone("test_efficientnet", out_features=["res3"])
    model(torch.rand(1, 3, 64, 64))["res3"].sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", ["test_resnet", "test_byobnet", "test_efficientnet"])
def test_frozen_norms_give_the_same(name):
    """Also with timm's norms that activate; the keys stay, so that weights fit either."""
    torch.manual_seed(0)
    model = TimmBackbone(name, out_features=list(LEVELS)).eval()
    for norm in [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]:
        norm.running_mean.uniform_(-0.2, 0.2)
        norm.running_var.uniform_(0.5, 1.5)
    frozen = TimmBackbone(name, out_features=list(LEVELS), norm="FrozenBN")
    assert not any(isinstance(m, nn.BatchNorm2d) for m in frozen.modules())
    frozen.load_state_dict(model.state_dict())
    x = torch.rand(2, 3, 64, 96)
    for ours, theirs in zip(frozen(x).values(), model(x).values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_frozen_norms_leave_layer_norms_trained():
    model = TimmBackbone("test_convnext", out_features=list(LEVELS), norm="FrozenBN")
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_trace_takes_images_of_other_sizes(name):
    """As in a graph of tools/export_student.py."""
    model = TimmBackbone(name, out_features=list(LEVELS), norm="FrozenBN").eval()
    model.requires_grad_(False)
    trace = torch.jit.trace(lambda x: tuple(model(x).values()), torch.rand(1, 3, 64, 96))
    x = torch.rand(1, 3, 96, 64)
    torch.testing.assert_close(trace(x), tuple(model(x).values()))


def test_in_a_python_config():
    bottom_up = L(TimmBackbone)(name="test_resnet", out_features=["res3", "res4"], freeze_at=2)
    fpn = L(FPN)(bottom_up=bottom_up, in_features=["res3", "res4"], out_channels=8)
    maps = instantiate(fpn)(torch.rand(1, 3, 64, 96))
    assert [tuple(x.shape) for x in maps.values()] == [(1, 8, 8, 12), (1, 8, 4, 6)]


def test_synchronised_norms():
    model = TimmBackbone("test_resnet", out_features=list(LEVELS), norm="SyncBN", freeze_at=1)
    kinds = {type(m) for m in model.modules()}
    assert {FrozenBatchNorm2d, nn.SyncBatchNorm} <= kinds
    assert nn.BatchNorm2d not in kinds


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("regnetx_04", {}, "no such model. Similar names: .*regnetx_004"),
        ("regnetx_004.in21k", {}, r"no such model. Similar names: regnetx_004\."),
        ("test_vit", {}, "its maps have the stride 16 alone, as those of a plain vision transf"),
        ("convmixer_768_32", {}, "its maps have the stride 7 alone"),
        ("sequencer2d_s", {}, "its strides are 7, 14, not powers of two"),
        ("shvit_s1", {}, r"maps of the strides 16, 32, 64, and none for res2 \(stride 4\)"),
        ("hiera_tiny_224", {}, r"it has no feature maps of images of any size \("),
        ("test_maxvit", {}, r"no feature maps of images of any size \(height .24. must be div"),
        ("inception_v3", {}, r"its map of stride 4 has the shape \(1, 192, 20, 36\) for an image"),
        ("resmlp_12_224", {}, "its maps have the stride 16 alone"),
        ("mvitv2_tiny", {"freeze_at": 1}, "FREEZE_AT 1: timm does not tell where the stem of mvit"),
        ("test_resnet", {"norm": "GN"}, "NORM 'GN': a timm backbone has one of BN, FrozenBN, Sync"),
        ("test_resnet", {"out_features": ["m2"]}, r"'m2' is no level .* res2 \(stride 4\), res3"),
    ],
)
def test_refusals(name, options, message):
    with pytest.raises(UserError, match=message):
        TimmBackbone(name, **{"out_features": list(LEVELS), **options})


def test_a_model_is_to_be_named(stock_cfg):
    add_distill_config(stock_cfg)
    with pytest.raises(UserError, match="MODEL.TIMM.NAME is empty"):
        build_model(_timm_cfg(stock_cfg, ""))


def test_without_timm(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    with pytest.raises(UserError, match="timm:resnet18: the package timm is not installed; pip in"):
        TimmBackbone("resnet18", out_features=["res5"])


@pytest.mark.parametrize("name", NAMES)
def test_a_resnet_teaches_it(distill_cfg, name, batch, storage):
    cfg = _timm_cfg(distill_cfg, name)
    cfg.DISTILL.METHODS = ("DKD", "REVIEWKD")
    model = build_model(cfg)
    strides = [s.stride for s in model.backbone.output_shape().values()]
    assert strides == [4, 8, 16, 32, 64]
    losses = model(batch)
    sum(losses.values()).backward()
    assert losses["loss_dkd"] > 0
    assert losses["loss_reviewkd"] > 0
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_a_retinanet(retina_cfg, batch, storage):
    cfg = _timm_cfg(retina_cfg)
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_timm_fpn_backbone"
    model = build_model(cfg)
    shapes = model.backbone.output_shape()
    assert [(name, s.stride) for name, s in shapes.items()] == [
        (f"p{level}", 2**level) for level in (3, 4, 5, 6, 7)
    ]
    losses = model(batch)
    sum(losses.values()).backward()
    assert losses["loss_kd"] > 0
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
