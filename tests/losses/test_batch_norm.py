import pytest
import torch
from torch import nn
from torch.testing import assert_close

from eakd_det.losses.batch_norm import BatchNorm, BatchNorm1d

LAYERS = pytest.mark.parametrize(
    ("layer", "stock", "shape"),
    [(BatchNorm, nn.BatchNorm2d, (3, 1, 1)), (BatchNorm1d, nn.BatchNorm1d, (3,))],
)


@LAYERS
def test_equals_the_stock_layer_from_two_values_on(layer, stock, shape):
    ours, theirs = layer(3), stock(3)
    x = torch.randn(2, *shape)
    assert torch.equal(ours(x), theirs(x))
    assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    assert torch.equal(ours.eval()(x[:1]), theirs.eval()(x[:1]))


@LAYERS
@pytest.mark.parametrize("samples", [0, 1])
def test_takes_running_statistics_without_a_variance(layer, stock, shape, samples):
    ours, theirs = layer(3), stock(3).eval()
    x = torch.randn(samples, *shape, requires_grad=True)
    output = ours(x)
    assert torch.equal(output, theirs(x))
    assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    output.sum().backward()
    assert x.grad.isfinite().all()
