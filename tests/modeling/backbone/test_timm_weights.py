"""MODEL.WEIGHTS timm://NAME, without a download."""

import pytest
import torch
from detectron2.modeling import build_model

from eakd_det.checkpoint.checkpointer import SafeCheckpointer
from eakd_det.config.defaults import add_distill_config
from eakd_det.modeling.backbone import timm_weights
from eakd_det.utils.errors import UserError

pytest.importorskip("timm")


@pytest.fixture
def timm_cfg(stock_cfg):
    cfg = stock_cfg
    add_distill_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_timm_fpn_backbone"
    cfg.MODEL.TIMM.NAME = "test_resnet"
    cfg.MODEL.PIXEL_MEAN = cfg.MODEL.PIXEL_STD = [127.5, 127.5, 127.5]
    return cfg


@pytest.fixture
def published(monkeypatch, tmp_path):
    """Random weights in place of published ones; the state dicts of the models that were built."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    create, built = timm_weights.create_features, {}

    def create_random(name, *, pretrained):
        assert pretrained
        torch.manual_seed(1)
        model = create(name)
        built[name] = {key: x.clone() for key, x in model.state_dict().items()}
        return model

    monkeypatch.setattr(timm_weights, "create_features", create_random)
    return built


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_weights_are_those_of_timm(timm_cfg, published, norm):
    timm_cfg.MODEL.RESNETS.NORM = norm
    model = build_model(timm_cfg)
    SafeCheckpointer(model).load("timm://test_resnet.r160_in1k")
    ours = model.backbone.bottom_up.features.state_dict()
    theirs = published["test_resnet.r160_in1k"]
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_retinanet_gets_them_too(timm_cfg, published):
    """Its levels are fewer than those of the file."""
    timm_cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    timm_cfg.MODEL.BACKBONE.NAME = "build_retinanet_timm_fpn_backbone"
    timm_cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    timm_cfg.MODEL.RETINANET.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]
    model = build_model(timm_cfg)
    SafeCheckpointer(model).load("timm://test_resnet")
    ours = model.backbone.bottom_up.features.state_dict()
    assert all(torch.equal(ours[key], x) for key, x in published["test_resnet"].items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["INPUT.FORMAT", "BGR"], r"test_resnet\.pth holds timm's weights, .* INPUT.FORMAT RGB"),
        (["MODEL.PIXEL_STD", "[1., 1., 1.]"], r"MODEL.PIXEL_STD \[127.5, 127.5, 127.5\]"),
        (["MODEL.TIMM.NAME", "test_convnext"], "holds no weight of this model"),
    ],
)
def test_other_models_and_pixels_are_refused(timm_cfg, published, options, message):
    timm_cfg.merge_from_list(options)
    with pytest.raises(UserError, match=message):
        SafeCheckpointer(build_model(timm_cfg)).load("timm://test_resnet")


def test_an_unknown_name(timm_cfg):
    checkpointer = SafeCheckpointer(build_model(timm_cfg))
    with pytest.raises(UserError, match="timm:test_resnt: there is no such model. Similar names"):
        checkpointer.load("timm://test_resnt")


def test_without_a_network(timm_cfg, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = (
        r"timm:test_resnet: its published weights are not on this machine and cannot be "
        r"downloaded \(.*\). .* or train the student from scratch \(MODEL.WEIGHTS ''\)"
    )
    with pytest.raises(UserError, match=message):
        SafeCheckpointer(build_model(timm_cfg)).load("timm://test_resnet")
