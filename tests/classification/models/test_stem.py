import importlib.util
import logging

import pytest
import torch

from classification.engine import build_distilled
from classification.models import MODELS, build_classifier
from classification.models.stem import stem_reduction


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("imagenet_")])
def test_stems_for_small_images_keep_their_size(name):
    assert stem_reduction(build_classifier(name, 10)) <= 2


@pytest.mark.parametrize(
    ("name", "reduction"),
    [
        ("imagenet_resnet18", 4),
        ("torchvision:resnet18", 4),
        ("torchvision:densenet121", 4),
        ("torchvision:convnext_tiny", 4),
        ("torchvision:mobilenet_v2", 2),
        ("torchvision:vgg11", 1),
        ("timm:resnet18", 4),
    ],
)
def test_stems_for_imagenet_reduce_the_size(name, reduction):
    if name.startswith("timm") and importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    with torch.device("meta"):
        assert stem_reduction(build_classifier(name, 10)) == reduction


@pytest.mark.parametrize("role", ["student", "teacher", "neither"])
def test_a_large_stem_is_warned_about_once(cfg, tmp_path, caplog, role):
    large = build_classifier("torchvision:resnet18", 10)
    torch.save({"model": large.state_dict()}, tmp_path / "large.pth")
    cfg.DISTILL.METHODS = ("KD",)
    if role == "student":
        cfg.MODEL.NAME = "torchvision:resnet18"
    if role == "teacher":
        cfg.TEACHER.NAME, cfg.TEACHER.WEIGHTS = "torchvision:resnet18", str(tmp_path / "large.pth")
    with caplog.at_level(logging.WARNING):
        build_distilled(cfg)
    warnings = [r.getMessage() for r in caplog.records if "has a stem for ImageNet" in r.msg]
    key = {"student": ["MODEL"], "teacher": ["TEACHER"], "neither": []}[role]
    assert [text.split(".NAME")[0] for text in warnings] == key
    if warnings:
        assert "torchvision:resnet18" in warnings[0]
        assert "images of 8 x 8 pixels to maps of 2 x 2" in warnings[0]
