import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses.reduction import at_least_float32, reduce_samples


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_halves_become_float32(dtype, expected):
    logits = torch.tensor([[1.5, -2.0]], dtype=dtype, requires_grad=True)
    result = at_least_float32(logits)
    assert result.dtype == expected
    assert_close(result, torch.tensor([[1.5, -2.0]], dtype=expected))
    assert torch.autograd.grad(result.sum(), logits)[0].dtype == dtype


def test_mean_divides_by_the_number_of_samples_not_by_the_weights():
    loss, weight = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0.0, 3.0, 0.5])
    assert reduce_samples(loss, None, "mean") == 3.0
    assert reduce_samples(loss, weight, "mean") == 3.0
    assert reduce_samples(loss, torch.zeros(3), "mean") == 0.0


def test_none_keeps_the_samples():
    loss, weight = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0.0, 3.0, 0.5])
    assert torch.equal(reduce_samples(loss, None, "none"), loss)
    assert torch.equal(reduce_samples(loss, weight, "none"), torch.tensor([0.0, 6.0, 3.0]))


def test_weight_gets_no_gradient():
    loss = torch.tensor([1.0, 2.0], requires_grad=True)
    weight = torch.tensor([3.0, 5.0], requires_grad=True)
    reduce_samples(loss, weight, "mean").backward()
    assert torch.equal(loss.grad, torch.tensor([1.5, 2.5]))
    assert weight.grad is None


@pytest.mark.parametrize("weight", [None, torch.ones(0)])
def test_no_samples_give_a_zero_in_the_graph(weight):
    loss = torch.zeros(0, requires_grad=True)
    result = reduce_samples(loss, weight, "mean")
    assert result == 0
    result.backward()
    assert loss.grad.shape == (0,)
    assert reduce_samples(loss, weight, "none").shape == (0,)


def test_gradcheck():
    loss = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([0.0, 3.0, 0.5], dtype=torch.float64)
    for reduction in ("mean", "none"):
        assert torch.autograd.gradcheck(
            lambda loss, r=reduction: reduce_samples(loss, weight, r), loss
        )


@pytest.mark.parametrize("shape", [(), (1,), (2,), (3, 1), (1, 3)])
def test_refuses_a_weight_that_is_not_one_a_sample(shape):
    with pytest.raises(ValueError, match="weight must have one value for each of the 3 samples"):
        reduce_samples(torch.zeros(3), torch.ones(shape), "mean")


@pytest.mark.parametrize("reduction", ["sum", "batchmean", None])
def test_refuses_an_unknown_reduction(reduction):
    with pytest.raises(ValueError, match="reduction must be"):
        reduce_samples(torch.zeros(3), None, reduction)
