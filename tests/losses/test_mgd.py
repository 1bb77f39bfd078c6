import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from eakd_det.losses import MaskedGeneration, draw_masks, mgd_loss
from eakd_det.losses.mgd import kept_positions

from .maps import MapCase, MapLossContract, each_dtype, make_maps


class TestMGD(MapLossContract):
    def loss(self, student, teacher, **options):
        return mgd_loss(student, teacher, alpha=0.3, **options)

    def slow_losses(self, student, teacher):
        images = range(len(student[0]))
        pairs = list(zip(student, teacher, strict=True))
        return torch.stack(
            [sum(0.3 * ((a[n] - b[n]) ** 2).sum() for a, b in pairs) for n in images]
        )


def test_generation_of_any_widths():
    torch.manual_seed(0)
    module = MaskedGeneration([3, 4], [5, 4]).double()
    student = [x.requires_grad_() for x in make_maps(2, [3, 4], 1, [(4, 5), (2, 2)])]
    masks = [torch.rand(2, 1, *size) > 0.5 for size in ((8, 10), (2, 2))]
    maps = module(student, [(8, 10), (2, 2)], masks)
    assert [tuple(x.shape) for x in maps] == [(2, 5, 8, 10), (2, 4, 2, 2)]
    first, _, last = module.generation[1]
    hidden = F.conv2d(student[1] * masks[1], first.weight, first.bias, padding=1).relu()
    assert_close(maps[1], F.conv2d(hidden, last.weight, last.bias, padding=1))
    mgd_loss(maps, make_maps(2, [5, 4], 2, [(8, 10), (2, 2)])).backward()
    assert all(p.grad.any() for p in module.parameters())
    assert not student[1].grad[~masks[1].expand_as(student[1])].any()


def test_masks_are_of_the_global_random_state():
    maps = make_maps(2, [4] * 5, 1)
    torch.manual_seed(3)
    first = draw_masks(maps)
    torch.manual_seed(3)
    again, other = draw_masks(maps), draw_masks(maps)
    assert [x.shape for x in first] == [(2, 1, *x.shape[-2:]) for x in maps]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("mask_ratio", [0.0, 0.45, 1.0])
def test_the_ratio_is_the_share_that_is_removed(mask_ratio):
    [mask] = draw_masks([torch.zeros(4, 2, 100, 100)], mask_ratio=mask_ratio)
    assert 1 - mask.float().mean().item() == pytest.approx(mask_ratio, abs=0.01)


def rename(level, key):
    return (
        f"adapter.align.{level}.{key[6:]}"
        if key.startswith("align.")
        else (f"generation.{level}.{key.removeprefix('generation.')}")
    )


@each_dtype
@pytest.mark.parametrize("name", ["retina", "frcnn_align", "n1_odd", "seg", "cls_channel"])
def test_golden(name, dtype):
    case = MapCase("mgd", name, dtype)
    masks = [case.get(f"mask{i}") for i in range(case.levels)]
    for i, mask in enumerate(masks):
        uniform, ratio = case.arrays[f"rand{i}_f32"], case.get("lam")
        case.used.add(f"rand{i}_f32")
        # The classification code keeps what is not below the ratio: as many, but others.
        kept = uniform >= ratio if name == "cls_channel" else kept_positions(uniform, ratio)
        assert torch.equal(kept, mask.bool())
    module = MaskedGeneration(*case.channels)
    case.load(module, rename)
    generated = module(case.student, case.shapes, masks)
    for i, x in enumerate(generated):
        case.compare(f"generated{i}", x)
    alpha = case.get("alpha")

    def loss(i, n):
        chosen = slice(None) if n is None else slice(n, n + 1)
        return mgd_loss([generated[i][chosen]], [case.teacher[i][chosen]], alpha=alpha)

    case.compare_losses(loss, module=module, rename=rename)
    case.assert_all_used()
