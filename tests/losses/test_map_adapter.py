import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from eakd_det.losses import MapAdapter

from .maps import make_maps

SIZES = [(8, 10), (4, 5)]


def test_equal_maps_pass_unchanged():
    maps = make_maps(2, [3, 4], 1, SIZES)
    module = MapAdapter([3, 4], [3, 4])
    assert not list(module.parameters()) and not module.state_dict()
    assert all(a is b for a, b in zip(module(maps, SIZES), maps, strict=True))


def test_other_channels_and_sizes():
    torch.manual_seed(0)
    module, maps = MapAdapter([3, 4], [5, 4]).double(), make_maps(2, [3, 4], 1, SIZES)
    got = module(maps, [(8, 10), (6, 3)])
    conv = module.align[0]
    assert conv.bias is not None and len(list(module.parameters())) == 2
    assert_close(
        got[0],
        torch.einsum("nchw,dc->ndhw", maps[0], conv.weight[:, :, 0, 0]) + conv.bias[:, None, None],
    )
    assert_close(got[1], F.interpolate(maps[1], (6, 3), mode="bilinear", align_corners=False))


def test_sizes_are_compared_in_height_and_width():
    [x] = make_maps(1, [2], 1, [(4, 6)])
    [got] = MapAdapter([2], [2])([x], [(4, 3)])
    assert_close(got, (x[..., 0::2] + x[..., 1::2]) / 2)


def test_refuses_other_numbers_of_levels():
    with pytest.raises(ValueError, match="2 levels of the student, 1 of the teacher"):
        MapAdapter([3, 3], [3])
