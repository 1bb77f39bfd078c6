import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import entropy_weight, kd_loss, ttm_loss, wttm_loss
from tests.golden import PRECISIONS, golden
from tests.losses.contract import SampleLossContract, make_logits, softmax

GAMMA = 0.4


def row_ttm(student_logits, teacher_logits):
    p, q = softmax(teacher_logits) ** GAMMA, softmax(student_logits)
    p = p / p.sum()
    return sum(p_c * torch.log(p_c / q_c) for p_c, q_c in zip(p, q, strict=True))


class TestTTM(SampleLossContract):
    def loss(self, student_logits, teacher_logits, labels, **options):
        # At equal logits teacher and student are alike without a transformation alone.
        is_same = torch.equal(student_logits, teacher_logits)
        return ttm_loss(student_logits, teacher_logits, gamma=1.0 if is_same else GAMMA, **options)

    def row_loss(self, student_logits, teacher_logits, label):
        return row_ttm(student_logits, teacher_logits)


class TestWTTM(SampleLossContract):
    def loss(self, student_logits, teacher_logits, labels, **options):
        is_same = torch.equal(student_logits, teacher_logits)
        return wttm_loss(student_logits, teacher_logits, gamma=1.0 if is_same else GAMMA, **options)

    def row_loss(self, student_logits, teacher_logits, label):
        power_sum = (softmax(teacher_logits) ** GAMMA).sum()
        return power_sum * row_ttm(student_logits, teacher_logits)


@pytest.mark.parametrize("loss", [ttm_loss, wttm_loss])
def test_gamma_is_a_tenth_unless_given_and_1_is_the_plain_kl(loss):
    student, teacher = make_logits((3, 5), 1), make_logits((3, 5), 2)
    assert torch.equal(loss(student, teacher), loss(student, teacher, gamma=0.1))
    assert_close(loss(student, teacher, gamma=1.0), kd_loss(student, teacher, temperature=1.0))


def test_an_uncertain_teacher_weighs_more_in_wttm():
    student, teacher = make_logits((5, 7), 1), make_logits((5, 7), 2)
    for sharpness in (0.1, 1.0, 10.0):
        ttm = ttm_loss(student, sharpness * teacher, reduction="none")
        ratio = wttm_loss(student, sharpness * teacher, reduction="none") / ttm
        assert (ratio >= 1).all() and (ratio <= 7**0.9 + 1e-9).all()
        if sharpness == 0.1:
            flat = ratio
    assert (flat > ratio).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_saturated_logits_stay_finite(dtype):
    student = (1e4 * torch.eye(3, 7)).to(dtype).requires_grad_()
    teacher = (1e4 * torch.eye(3, 7).flip(1)).to(dtype)
    for loss in (ttm_loss, wttm_loss):
        value = loss(student, teacher)
        (gradient,) = torch.autograd.grad(value, student)
        assert torch.isfinite(value) and torch.isfinite(gradient).all()


LOSSES = {
    "ttm": (ttm_loss, False),
    "wttm": (wttm_loss, False),
    "eattm": (ttm_loss, True),
    "eawttm": (wttm_loss, True),
}


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("case", ["c100", "csmall"])
def test_released_figures(case, dtype):
    """Every array, but the cross-entropy, which is PyTorch's own."""
    arrays = golden("ttm")
    tolerance = {"rtol": PRECISIONS[dtype], "atol": PRECISIONS[dtype]}
    student = arrays[f"{case}.student"].to(dtype).requires_grad_()
    teacher = arrays[f"{case}.teacher"].to(dtype)
    weight = entropy_weight(student, teacher, temperature=arrays[f"{case}.t"].item())
    assert_close(weight.double(), arrays[f"{case}.w"], **tolerance)
    groups = sorted({k.split(".")[1] for k in arrays if k.startswith(f"{case}.g")})
    assert groups
    compared = 0
    for group in groups:
        own = {k.rpartition(".")[2]: a for k, a in arrays.items() if f"{case}.{group}." in k}
        gamma = own.pop("gamma").item()
        powers = teacher.double().softmax(dim=1) ** gamma
        assert_close(powers.sum(dim=1), own.pop("power_sum"), rtol=1e-6, atol=1e-6)
        assert_close((gamma * teacher.double()).softmax(dim=1), own.pop("q"), rtol=1e-6, atol=1e-6)
        for name, expected in own.items():
            method, _, form = name.partition("_")
            loss, has_weight = LOSSES[method]
            options = {"gamma": gamma, "weight": weight if has_weight else None}
            value = loss(
                student,
                teacher,
                reduction="none" if form == "per_sample" else "mean",
                **options,
            )
            if form == "grad":
                (value,) = torch.autograd.grad(value, student)
            assert value.dtype == dtype
            assert_close(value.double(), expected, **tolerance, msg=lambda t, n=name: f"{n}: {t}")
            compared += 1
    assert compared == sum(k.startswith(f"{case}.g") for k in arrays) - 3 * len(groups)
