import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import standardize
from tests.losses.contract import (
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
    return (row - mean) / (variance.sqrt() + 1e-7)


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
def test_constant_logits_give_zeros(dtype):
    logits = torch.full((2, 8), 3.0, dtype=dtype, requires_grad=True)
    result = standardize(logits)
    assert not result.any()
    if dtype != torch.float16:  # which has no room for a gradient of 1 / epsilon
        (result * torch.arange(8)).sum().backward()
        assert logits.grad.isfinite().all()


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
