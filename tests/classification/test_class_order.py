"""Class names in checkpoints, and their order."""

import logging

import pytest
import torch

from classification.class_order import load_in_order
from classification.models import build_classifier
from eakd_det.utils.errors import UserError

THERE, HERE = ("cat", "dog", "owl"), ("owl", "cat", "dog")
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def saved(name, path, **content):
    torch.manual_seed(0)
    model = build_classifier(name, 3).eval()
    torch.save({"model": model.state_dict(), **content}, path)
    return model


def load(name, path, names):
    model = build_classifier(name, len(names))
    load_in_order(model, str(path), names, image_size=32, key="TEACHER", side="teacher")
    return model.eval()


@pytest.mark.parametrize(
    "name",
    ["resnet8", "wrn_16_1", "vgg8", "MobileNetV2", "ShuffleNetV1", "torchvision:resnet18"],
)
@torch.no_grad()
def test_classes_in_another_order_are_mapped(tmp_path, caplog, name):
    caplog.set_level(logging.INFO)
    model = saved(name, tmp_path / "a.pth", class_names=list(THERE))
    expected = model(IMAGES)[:, [2, 0, 1]]
    torch.testing.assert_close(load(name, tmp_path / "a.pth", HERE)(IMAGES), expected)
    assert "mapped by name" in caplog.text
    torch.testing.assert_close(load(name, tmp_path / "a.pth", THERE)(IMAGES), model(IMAGES))


def test_without_names_only_the_number_is_compared(tmp_path):
    model = saved("resnet8", tmp_path / "a.pth")
    with torch.no_grad():
        assert torch.equal(load("resnet8", tmp_path / "a.pth", HERE)(IMAGES), model(IMAGES))
    with pytest.raises(UserError, match=r"fc.weight \(3, 64\) in the file, \(2, 64\) in the model"):
        load("resnet8", tmp_path / "a.pth", HERE[:2])


def test_other_classes_are_named(tmp_path):
    saved("resnet8", tmp_path / "a.pth", class_names=list(THERE))
    with pytest.raises(UserError) as info:
        load("resnet8", tmp_path / "a.pth", ("cat", "dog", "fox", "yak"))
    assert str(info.value).splitlines() == [
        f"TEACHER.WEIGHTS {tmp_path / 'a.pth'} has other classes than the data:",
        "  only in the checkpoint: owl",
        "  only in the data: fox, yak",
    ]


def test_a_model_that_does_not_end_with_a_linear_layer_is_refused(tmp_path):
    saved("torchvision:squeezenet1_1", tmp_path / "b.pth", class_names=list(THERE))
    with pytest.raises(UserError, match="linear layer"):
        load("torchvision:squeezenet1_1", tmp_path / "b.pth", HERE)
