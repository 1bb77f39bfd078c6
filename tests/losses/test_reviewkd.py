import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from eakd_det.losses import ReviewFusion, hcl_loss
from tests.golden import PRECISIONS, golden

from .maps import SIZES, make_maps


def slow_hcl(student, teacher):
    """HCL of one image, level by level, as the paper's text has it."""
    total = 0.0
    for a, b in zip(student, teacher, strict=True):
        loss, factors, factor = ((a - b) ** 2).mean(), 1.0, 1.0
        for size in (4, 2, 1):
            if size >= a.shape[-2]:
                continue
            factor /= 2
            pooled = [F.adaptive_avg_pool2d(x, (size, size)) for x in (a, b)]
            loss = loss + factor * ((pooled[0] - pooled[1]) ** 2).mean()
            factors += factor
        total = total + loss / factors
    return total


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_matches_the_slow_formula(images, weighted):
    student, teacher = make_maps(images, [4] * 5, 1), make_maps(images, [4] * 5, 2)
    for x in student:
        x.requires_grad_()
    weight = torch.arange(1.0, images + 1, dtype=torch.float64) if weighted else None
    loss = hcl_loss(student, teacher, weight=weight)
    each = [slow_hcl([x[n] for x in student], [x[n] for x in teacher]) for n in range(images)]
    exact = sum(v * (weight[n] if weighted else 1) for n, v in enumerate(each)) / images
    assert_close(loss, exact)
    for got, expected in zip(
        torch.autograd.grad(loss, student), torch.autograd.grad(exact, student), strict=True
    ):
        assert_close(got, expected)


def test_gradcheck():
    student = [x.requires_grad_() for x in make_maps(2, [2, 2], 1, [(5, 6), (2, 3)])]
    teacher = make_maps(2, [2, 2], 2, [(5, 6), (2, 3)])
    weight = torch.tensor([0.5, 2.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *x: hcl_loss(x, teacher, weight=weight), student)


def test_equal_maps_give_zero():
    maps = make_maps(2, [3] * 5, 1)
    assert hcl_loss(maps, [x.clone() for x in maps]) == 0


def test_teacher_gets_no_gradient():
    student, teacher = make_maps(2, [3] * 5, 1), make_maps(2, [3] * 5, 2)
    for x in student + teacher:
        x.requires_grad_()
    hcl_loss(student, teacher).backward()
    assert all(x.grad.any() for x in student)
    assert all(x.grad is None for x in teacher)


def test_no_image_gives_a_zero_in_the_graph():
    student = [x.requires_grad_() for x in make_maps(0, [3] * 5, 1)]
    loss = hcl_loss(student, make_maps(0, [3] * 5, 2), weight=torch.zeros(0))
    assert loss == 0
    loss.backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_in_float32(dtype):
    student, teacher = (make_maps(2, [3] * 5, seed, dtype=dtype) for seed in (1, 2))
    student[0] = student[0] * 0 + 600.0  # its square overflows float16
    loss = hcl_loss(student, teacher)
    assert loss.dtype == torch.float32
    assert_close(loss, hcl_loss([x.float() for x in student], [x.float() for x in teacher]))


def test_refuses_what_does_not_match():
    maps = make_maps(2, [3] * 5, 1)
    with pytest.raises(ValueError, match="5 levels of the student, 4 of the teacher"):
        hcl_loss(maps, maps[:4])
    with pytest.raises(ValueError, match=r"differ: \(2, 3, 8, 10\), \(2, 1, 8, 10\)"):
        hcl_loss(maps, [maps[0][:, :1], *maps[1:]])
    with pytest.raises(ValueError, match="weight .* 2 samples"):
        hcl_loss(maps, maps, weight=torch.ones(3))
    with pytest.raises(ValueError, match="2 levels of the student, 1 of the teacher"):
        ReviewFusion([3, 3], [3])


@pytest.mark.parametrize("images", [1, 2])
def test_fusion_of_any_widths(images):
    torch.manual_seed(0)
    fusion = ReviewFusion([3, 4, 5, 6, 7], [8, 7, 6, 5, 4]).double()
    features = [x.requires_grad_() for x in make_maps(images, [3, 4, 5, 6, 7], 1)]
    fused = fusion(features)
    expected = [(images, c, *size) for c, size in zip([8, 7, 6, 5, 4], SIZES, strict=True)]
    assert [tuple(x.shape) for x in fused] == expected
    hcl_loss(fused, make_maps(images, [8, 7, 6, 5, 4], 2)).backward()
    assert all(x.grad.isfinite().all() and x.grad.any() for x in features)
    # The attention of the coarsest level has nothing to attend to.
    assert all(p.grad is not None for p in fusion.parameters())


def test_one_value_a_channel_takes_the_running_statistics():
    torch.manual_seed(0)
    fusion = ReviewFusion([3], [4]).double()
    [x] = make_maps(1, [3], 1, [(1, 1)])
    before = {name: buffer.clone() for name, buffer in fusion.named_buffers()}
    trained = fusion([x])[0]
    assert all(torch.equal(before[name], buffer) for name, buffer in fusion.named_buffers())
    assert_close(trained, fusion.eval()([x])[0])


def test_coarse_levels_reach_fine_ones_and_not_the_other_way():
    torch.manual_seed(0)
    fusion = ReviewFusion([3] * 5, [3] * 5).double().eval()
    features = make_maps(1, [3] * 5, 1)
    base = fusion(features)
    coarse = fusion([*features[:4], features[4] + 1])
    assert not torch.equal(coarse[0], base[0])
    fine = fusion([features[0] + 1, *features[1:]])
    assert not torch.equal(fine[0], base[0])
    assert all(torch.equal(a, b) for a, b in zip(fine[1:], base[1:], strict=True))


def test_number_of_parameters_is_the_released_modules():
    fusion = ReviewFusion([256] * 5, [256] * 5)
    expected = int(golden("reviewkd")["detection.full_num_params"])
    assert sum(p.numel() for p in fusion.parameters()) == expected


# Golden figures, one level after another; the pooled vector of a classifier is a 1 x 1 map.

CASES = ["same_shapes", "diff_shapes", "detection"]


class Case:
    """The inputs of a case, and its figures."""

    def __init__(self, name, dtype):
        prefix = f"{name}."
        arrays = golden("reviewkd")
        self.figures = {k.removeprefix(prefix): a for k, a in arrays.items() if prefix in k}
        self.dtype = dtype
        self.student = [x.requires_grad_() for x in self._maps("sfeat")]
        self.teacher = self._maps("tfeat")
        state = {
            key.removeprefix("abfs."): a.to(dtype) if a.is_floating_point() else a
            for key, a in self.figures.items()
            if key.startswith("abfs.")
        }
        last = max(int(key.split(".")[0]) for key in state)
        widths_out = [state[f"{i}.conv2.0.weight"].shape[0] for i in range(last, -1, -1)]
        mid = state["0.conv1.0.weight"].shape[0]
        widths_in = [x.shape[1] for x in self.student]
        self.fusion = ReviewFusion(widths_in, widths_out, mid_channels=mid).to(dtype)
        self.fusion.abfs.load_state_dict(state)

    def _maps(self, stem):
        maps = []
        while f"{stem}{len(maps)}" in self.figures:
            maps.append(self.figures[f"{stem}{len(maps)}"].to(self.dtype))
        if f"{stem}_pooled" in self.figures:
            maps.append(self.figures[f"{stem}_pooled"].to(self.dtype)[:, :, None, None])
        return maps

    def fused(self):
        shapes = None
        if "out_shapes" in self.figures:
            shapes = [(int(n), int(n)) for n in self.figures["out_shapes"].flip(0)]
        return self.fusion(self.student, shapes)

    def factor(self):
        """The released code's weight of the loss at the epoch of the case."""
        epoch, warm_up = self.figures["epoch"].item(), self.figures["warmup_epochs"].item()
        return self.figures["reviewkd_weight"].item() * min(epoch / warm_up, 1)

    def compare(self, name, actual):
        assert actual.dtype == self.dtype
        tolerance = PRECISIONS[self.dtype]
        expected = self.figures[name].reshape(actual.shape)
        assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.fixture(params=PRECISIONS, ids=str)
def dtype(request):
    return request.param


@pytest.mark.parametrize("name", CASES)
def test_golden_fusion(name, dtype):
    case = Case(name, dtype)
    for i, x in enumerate(case.fused()):
        case.compare(f"fused{i}", x)
    for key, figure in case.figures.items():
        if key.startswith("abfs_after."):
            buffer = case.fusion.abfs.get_buffer(key.removeprefix("abfs_after."))
            assert_close(buffer.double(), figure, rtol=PRECISIONS[dtype], atol=PRECISIONS[dtype])
    case = Case(name, dtype)
    case.fusion.eval()
    for i, x in enumerate(case.fused()):
        case.compare(f"fused_eval{i}", x)


@pytest.mark.parametrize("name", ["same_shapes", "diff_shapes"])
@pytest.mark.parametrize("form", ["base", "ea"])
def test_golden_hcl(name, form, dtype):
    case = Case(name, dtype)
    weight = case.figures["w"].to(dtype) if form == "ea" else None
    fused = case.fused()
    for n, by_level in enumerate(case.figures[f"hcl_{form}_by_level"]):
        level = hcl_loss([fused[n]], [case.teacher[n]], weight=weight)
        assert_close(level.double(), by_level, rtol=PRECISIONS[dtype], atol=PRECISIONS[dtype])
    for n, per_sample in enumerate(case.figures["hcl_per_sample_by_level"]):
        for image, figure in enumerate(per_sample):
            alone = hcl_loss([fused[n][image, None]], [case.teacher[n][image, None]])
            assert_close(alone.double(), figure, rtol=PRECISIONS[dtype], atol=PRECISIONS[dtype])
    loss = hcl_loss(fused, case.teacher, weight=weight)
    case.compare(f"hcl_{form}", loss)
    scaled = case.factor() * loss
    case.compare(f"{form}_loss", scaled)
    for n, gradient in enumerate(torch.autograd.grad(scaled, case.student)):
        last = n == len(case.student) - 1
        case.compare(f"{form}_grad_pooled" if last else f"{form}_grad_sfeat{n}", gradient)


@pytest.mark.parametrize("name", ["same_shapes", "diff_shapes"])
def test_golden_gradients_of_the_fusion(name, dtype):
    case = Case(name, dtype)
    loss = hcl_loss(case.fused(), case.teacher, weight=case.figures["w"].to(dtype))
    (case.factor() * loss).backward()
    first, second = case.fusion.abfs[0], case.fusion.abfs[1]
    case.compare("ea_grad_abf0_conv1", first.conv1[0].weight.grad)
    case.compare("ea_grad_abf1_att_w", second.att_conv[0].weight.grad)
    case.compare("ea_grad_abf1_att_b", second.att_conv[0].bias.grad)


def test_golden_detection(dtype):
    case = Case("detection", dtype)
    fused = case.fused()
    for n, by_level in enumerate(case.figures["hcl_by_level"]):
        level = hcl_loss([fused[n]], [case.teacher[n]])
        assert_close(level.double(), by_level, rtol=PRECISIONS[dtype], atol=PRECISIONS[dtype])
    loss = hcl_loss(fused, case.teacher)
    case.compare("hcl", loss)
    for n, gradient in enumerate(torch.autograd.grad(loss, case.student)):
        case.compare(f"grad_sfeat{n}", gradient)
    case = Case("detection", dtype)
    case.fusion.eval()
    case.compare("hcl_eval", hcl_loss(case.fused(), case.teacher))
