import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from eakd_det.modeling.teacher import winograd
from eakd_det.modeling.teacher.winograd import MIN_CHANNELS, WinogradConv2d, use_winograd

WIDE = MIN_CHANNELS


@pytest.fixture(autouse=True)
def _is_faster_here(monkeypatch):
    monkeypatch.setattr(winograd, "IS_FASTER_HERE", True)


def tiled(conv):
    """The convolution after the replacement, alone."""
    model = nn.Sequential(copy.deepcopy(conv))
    use_winograd(model)
    return model[0]


def inputs(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# Images, channels in and out, height, width: whole tiles, tiles beyond the edge, several parts.
@pytest.mark.parametrize(
    ("number", "channels", "width", "shape"),
    [
        (256, WIDE, WIDE, (4, 4)),
        (50, WIDE, WIDE + 3, (7, 9)),
        (1, WIDE + 1, WIDE, (67, 61)),
        (170, WIDE, WIDE, (8, 8)),
        (2, WIDE, WIDE, (65, 71)),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_convolution_in_float64(number, channels, width, shape, bias, layout):
    torch.manual_seed(1)
    conv = nn.Conv2d(channels, width, 3, padding=1, bias=bias).to(memory_format=layout)
    x = inputs(number, channels, *shape).contiguous(memory_format=layout)
    ours = tiled(conv)
    got = ours(x)
    assert not got.equal(conv(x))  # it was computed in tiles
    expected = copy.deepcopy(conv).double()(x.double()).float()
    # F(4 x 4, 3 x 3) loses a digit: its transforms have factors up to 8.
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=4e-5)


def test_gradients_flow():
    torch.manual_seed(1)
    conv = nn.Conv2d(WIDE, WIDE, 3, padding=1)
    gradients = []
    for module in (conv, tiled(conv)):
        x = inputs(64, WIDE, 8, 8).requires_grad_()
        module(x).square().mean().backward()
        gradients.append((x.grad, module.weight.grad, module.bias.grad))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("shape", [(63, 8, 8), (300, 2, 2), (80, 5, 5), (200, 1, 8)])
def test_small_maps_and_batches_are_stock(shape):
    number, *size = shape
    conv = nn.Conv2d(WIDE, WIDE, 3, padding=1)
    x = inputs(number, WIDE, *size)
    assert tiled(conv)(x).equal(conv(x))


def test_other_precisions_are_stock():
    conv = nn.Conv2d(WIDE, WIDE, 3, padding=1)
    x = inputs(64, WIDE, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert tiled(conv)(x).equal(conv(x))
    assert tiled(conv).double()(x.double()).equal(conv.double()(x.double()))
    conv = conv.bfloat16()
    assert tiled(conv)(x.bfloat16()).equal(conv(x.bfloat16()))


class Reads(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.conv = nn.Conv2d(WIDE, WIDE, **{"kernel_size": 3, "padding": 1, **options})


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"padding": 0},
        {"padding": "same"},
        {"dilation": 2, "padding": 2},
        {"groups": 2},
        {"kernel_size": 1, "padding": 0},
        {"kernel_size": 5, "padding": 2},
        {"padding_mode": "reflect"},
    ],
)
def test_convolutions_of_another_kind_stay(options):
    model = Reads(**options)
    use_winograd(model)
    assert type(model.conv) is nn.Conv2d


def test_narrow_ones_and_derived_classes_stay():
    class Own(nn.Conv2d):
        pass

    model = nn.Sequential(
        nn.Conv2d(WIDE - 1, WIDE, 3, padding=1),
        nn.Conv2d(WIDE, WIDE - 1, 3, padding=1),
        Own(WIDE, WIDE, 3, padding=1),
    )
    use_winograd(model)
    assert [type(m) for m in model] == [nn.Conv2d, nn.Conv2d, Own]


def test_weights_stay_the_same_tensors_in_the_same_places():
    model = nn.Sequential(Reads(), Reads(bias=False)).eval().requires_grad_(False)
    before = dict(model.named_parameters())
    use_winograd(model)
    after = dict(model.named_parameters())
    assert before.keys() == after.keys() == model.state_dict().keys()
    assert all(after[key] is before[key] for key in before)
    assert all(type(m.conv) is WinogradConv2d and not m.conv.training for m in model)
    assert F.conv2d(inputs(1, WIDE, 3, 3), model[0].conv.weight).shape == (1, WIDE, 1, 1)


def test_where_it_is_not_faster_nothing_changes(monkeypatch):
    monkeypatch.setattr(winograd, "IS_FASTER_HERE", False)
    model = Reads()
    use_winograd(model)
    assert type(model.conv) is nn.Conv2d
