import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import PrimeAwareHead, pad_loss
from tests.losses.contract import HALVES


def make(number=4, width=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, number, width, generator=generator, dtype=dtype)
    log_variance = torch.randn(number, generator=generator, dtype=dtype)
    return student.requires_grad_(), teacher, log_variance.requires_grad_()


def test_matches_the_slow_formula():
    student, teacher, log_variance = make()
    expected = []
    for s, t, v in zip(student, teacher, log_variance, strict=True):
        variance = v.exp()
        distance = sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / 3
        expected.append(distance / variance + variance.log())
    got = pad_loss(student, teacher, log_variance, reduction="none")
    assert_close(got, torch.stack(expected))
    assert_close(pad_loss(student, teacher, log_variance), torch.stack(expected).mean())


def test_gradcheck():
    student, teacher, log_variance = make()
    weight = torch.linspace(0, 2, 4, dtype=torch.float64)
    for options in ({}, {"weight": weight}, {"weight": weight, "reduction": "none"}):
        assert torch.autograd.gradcheck(
            lambda s, v, o=options: pad_loss(s, teacher, v, **o), (student, log_variance)
        )


def test_the_best_variance_is_the_squared_distance():
    student, teacher, log_variance = make()
    best = (student - teacher).square().mean(dim=1).log().detach().requires_grad_()
    (gradient,) = torch.autograd.grad(pad_loss(student, teacher, best), best)
    assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)
    assert pad_loss(student, teacher, best) < pad_loss(student, teacher, log_variance)


def test_an_uncertain_sample_pulls_less():
    student, teacher, _ = make(2)
    log_variance = torch.tensor([0.0, 2.0], dtype=torch.float64)
    same = student[:1].expand(2, -1).detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(pad_loss(same, teacher[:1].expand(2, -1), log_variance), same)
    assert_close(gradient[1], gradient[0] * torch.exp(torch.tensor(-2.0, dtype=torch.float64)))


def test_weights_scale_samples_and_ones_change_nothing():
    inputs = make()
    weight = torch.tensor([0.0, 1.0, 2.0, 0.5], dtype=torch.float64)
    each = pad_loss(*inputs, reduction="none")
    assert_close(pad_loss(*inputs, weight=weight), (weight * each).mean())
    assert torch.equal(pad_loss(*inputs, weight=torch.ones_like(weight)), pad_loss(*inputs))
    with pytest.raises(ValueError, match="4 samples"):
        pad_loss(*inputs, weight=weight[:, None])


def test_the_teacher_gets_no_gradient_and_no_samples_a_zero():
    student, teacher, log_variance = make()
    teacher.requires_grad_()
    pad_loss(student, teacher, log_variance).backward()
    assert teacher.grad is None and student.grad.any()
    empty = torch.zeros(0, 3, requires_grad=True)
    loss = pad_loss(empty, torch.zeros(0, 3), torch.zeros(0))
    loss.backward()
    assert loss == 0 and empty.grad.shape == (0, 3)


@pytest.mark.parametrize("dtype", HALVES)
def test_halves_are_computed_in_float32(dtype):
    student, teacher, log_variance = (x.detach().to(dtype) for x in make())
    loss = pad_loss(300 * student, teacher, log_variance)
    assert loss.dtype == torch.float32 and torch.isfinite(loss)


@pytest.mark.parametrize("number", [1, 4])
def test_the_head_maps_and_says_how_certain(number):
    torch.manual_seed(0)
    head = PrimeAwareHead(5, 3).train()
    mapped, log_variance = head(torch.randn(number, 5))
    assert mapped.shape == (number, 3) and log_variance.shape == (number,)
    pad_loss(mapped, torch.randn(number, 3), log_variance).backward()
    assert all(p.grad is not None for p in head.parameters())
