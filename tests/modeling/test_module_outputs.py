from functools import partial

import pytest
import torch
from torch import nn

from eakd_det.modeling.module_outputs import find_maps
from eakd_det.utils.errors import UserError


class _Patches(nn.Conv2d):
    """Features of patches, channels last, as a ViT's blocks return them."""

    def forward(self, x):
        return super().forward(x).permute(0, 2, 3, 1)


class _Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.patches = nn.Conv2d(3, 5, 4, 4), _Patches(3, 96, 16, 16)
        self.addition, self.spare = nn.Conv2d(5, 5, 1), nn.Conv2d(5, 5, 1)

    def forward(self, x):
        self.patches(x)
        stem = self.stem(x)
        stem = stem + self.addition(stem).mul_(2)
        return {"stem": stem}


class _Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = _Backbone()


def _find(*names, size=(64, 128)):
    model = _Detector()
    run = partial(model.backbone, torch.zeros(2, 3, *size))
    return find_maps(model, "teacher", list(names), run, 2)


@pytest.mark.parametrize("size", [(64, 64), (64, 128), (100, 36)])
def test_channels_and_strides(size):
    [spec] = _find("backbone.stem", size=size)
    assert (spec.channels, spec.stride) == (5, 4)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("backbone.patches", r"returns a tensor of shape \(2, 4, 8, 96\) for images of 64 x 128"),
        ("backbone.addition", "is changed in place"),
        ("backbone.spare", "is not called in a forward pass; only its backbone runs"),
        ("backbone", "returns a dict of stem"),
        ("backbone.steam", "the nearest are backbone.stem"),
        ("stem", "the nearest are backbone.stem"),
    ],
)
def test_what_is_no_map_is_refused(name, text):
    with pytest.raises(UserError, match=f"DISTILL.FEATURES: .*teacher.*{text}"):
        _find("backbone.stem", name)


def test_no_hook_stays():
    model = _Detector()
    with pytest.raises(ZeroDivisionError):
        find_maps(model, "student", ["backbone.stem"], lambda: 1 / 0, 2)
    assert not model.backbone.stem._forward_hooks
