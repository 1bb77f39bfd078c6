import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from eakd_det.losses import kd_loss, standardize

from .contract import (
    HALVES,
    assert_matches,
    check_against_rows,
    check_autocast,
    each_shape_and_dtype,
    make_logits,
    one_hot_logits,
)


def _slow_row(row):
    mean = sum(row) / len(row)
    variance = sum((z - mean) ** 2 for z in row) / (len(row) - 1)
    return (row - mean) / (max(variance.sqrt(), 0.1) + 1e-7)


@each_shape_and_dtype
def test_matches_the_slow_formula(shape, dtype):
    check_against_rows(standardize, lambda n, row: _slow_row(row), make_logits(shape, 1, dtype))


def test_gradcheck():
    assert torch.autograd.gradcheck(standardize, make_logits((4, 5), 1).requires_grad_())


def test_mean_is_0_and_std_is_1():
    result = standardize(make_logits((6, 5), 1))
    assert_close(result.mean(dim=1), torch.zeros(6, dtype=torch.float64))
    std = (result.square().sum(dim=1) / 4).sqrt()
    assert_close(std, torch.ones(6, dtype=torch.float64), atol=1e-6, rtol=0)  # epsilon is 1e-7


def test_ignores_shift_and_positive_scale():
    logits = make_logits((6, 5), 1)
    shift = make_logits((6, 1), 2, scale=50)
    assert_close(standardize(2.5 * logits + shift), standardize(logits))
    assert_close(standardize(-logits), -standardize(logits))


def test_permuting_the_batch_permutes():
    logits, order = make_logits((6, 5), 1), torch.tensor([4, 2, 0, 5, 1, 3])
    assert_close(standardize(logits[order]), standardize(logits)[order])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES])
@pytest.mark.parametrize("offset", [0.0, 3.0])
@pytest.mark.parametrize("spread", [0.0, 1e-8, 1e-6, 1e-4, 1e-3])
def test_nearly_constant_logits_are_magnified_tenfold_at_most(spread, offset, dtype):
    """Value and gradient are those of a division by 0.1, not by next to nothing."""
    logits = (offset + spread * make_logits((4, 10), 1, scale=1.0)).to(dtype).requires_grad_()
    result = standardize(logits)
    exact = logits.detach().double()
    exact = 10 * (exact - exact.mean(dim=1, keepdim=True))
    assert_close(result.double(), exact, atol=1e-5, rtol=1e-4)
    direction = make_logits((4, 10), 2).to(result.dtype)
    (gradient,) = torch.autograd.grad((result * direction).sum(), logits)
    exact = 10 * (direction - direction.mean(dim=1, keepdim=True))
    assert_close(gradient.double(), exact.double(), atol=1e-3, rtol=2**-7)


def test_the_gradient_is_bounded_at_every_spread():
    direction = make_logits((4, 10), 2)
    for spread in torch.logspace(-9, 3, 49, dtype=torch.float64):
        logits = (spread * make_logits((4, 10), 1, scale=1.0)).requires_grad_()
        (gradient,) = torch.autograd.grad((standardize(logits) * direction).sum(), logits)
        assert (gradient.norm(dim=1) <= 10 * direction.norm(dim=1)).all()


def test_gradcheck_below_the_floor():
    logits = make_logits((4, 5), 1, scale=1e-2).requires_grad_()
    assert torch.autograd.gradcheck(standardize, logits)


@pytest.mark.parametrize("scale", [0.0, 1e-4])
def test_a_zeroed_head_trains(scale):
    """By SGD at LS's own weight of 9, which threw its weights away in one step."""
    torch.manual_seed(0)
    head, features = torch.nn.Linear(64, 10), torch.randn(128, 64).relu()
    with torch.no_grad():
        head.weight.mul_(scale)
        head.bias.mul_(scale)
    labels = torch.arange(128) % 10
    teacher_logits = 3 * torch.randn(128, 10) + 4 * F.one_hot(labels, 10)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.05, momentum=0.9)
    values = []
    for _ in range(40):
        logits = head(features)
        pair = standardize(logits), standardize(teacher_logits)
        loss = F.cross_entropy(logits, labels) + 9 * kd_loss(*pair, temperature=2.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert max(values) < 2 * values[0]
    assert values[-1] < 0.7 * values[0]


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_large_logits(dtype):
    logits = one_hot_logits(3, 81, dtype).requires_grad_()
    result = standardize(logits)
    exact = torch.full((1, 81), -1 / 9, dtype=torch.float64)  # the std is the gap / sqrt(C)
    exact[0, 3] = 80 / 9
    assert_matches(result, exact)
    result[:, 3].sum().backward()
    assert logits.grad.isfinite().all()


def test_no_samples_stay_in_the_graph():
    logits = torch.zeros(0, 5, requires_grad=True)
    standardize(logits).sum().backward()
    assert logits.grad.shape == (0, 5)


def test_refuses_one_class():
    with pytest.raises(ValueError, match=r"at least 2 classes, got logits \(3, 1\)"):
        standardize(torch.zeros(3, 1))


@pytest.mark.parametrize("dtype", HALVES)
def test_autocast(dtype):
    check_autocast(
        lambda student, teacher: standardize(student).square() * standardize(teacher), dtype
    )
