import logging
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from eakd_det.modeling.teacher import output_difference
from eakd_det.modeling.teacher.output_difference import (
    TF32_TOLERANCE,
    TOLERANCE,
    log_output_difference,
    tolerance,
)


def report(caplog, before, after):
    """The difference, and the one line about it."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "eakd_det.modeling.teacher.output_difference"):
        difference = log_output_difference(before, after)
    (record,) = caplog.records
    return difference, record


def test_the_largest_difference_of_all_tensors_is_logged(caplog):
    before = [torch.zeros(2, 3), torch.ones(4)]
    after = [torch.zeros(2, 3), torch.tensor([1.0, 1.0, 0.9995, 1.0])]
    difference, record = report(caplog, before, after)
    assert difference == pytest.approx(5e-4, rel=1e-3)
    assert record.levelname == "INFO" and "at most 0.0005" in record.getMessage()


@pytest.mark.parametrize("value", [2e-3, float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_more_than_a_rounding_is_a_warning_with_a_way_out(caplog, value, dtype):
    _, record = report(
        caplog, [torch.zeros(2, dtype=dtype)], [torch.tensor([0.0, value]).to(dtype)]
    )
    assert record.levelname == "WARNING" and "TEACHER.FAST False" in record.getMessage()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_may_differ_but_must_be_finite(caplog, dtype):
    before = torch.zeros(2)
    difference, record = report(caplog, [before], [torch.tensor([0.0, 0.5], dtype=dtype)])
    assert difference == 0.5 and record.levelname == "INFO"
    _, record = report(caplog, [before.to(dtype)], [torch.tensor([0.0, 0.5])])
    assert record.levelname == "INFO"
    _, record = report(caplog, [before], [torch.tensor([0.0, 1e39]).to(dtype)])
    assert record.levelname == "WARNING" and "TEACHER.PRECISION" in record.getMessage()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_bound_depends_on_the_precision(device):
    """TF32 rounds the factors of float32 alone, and on no CPU."""
    assert tolerance(torch.float64, device) == TOLERANCE
    assert tolerance(torch.float32, device) == (TOLERANCE if device == "cpu" else TF32_TOLERANCE)
    assert tolerance(torch.float16, device) == tolerance(torch.bfloat16, device) == math.inf


def test_a_rounding_to_tf32_is_no_warning(caplog, monkeypatch):
    monkeypatch.setattr(output_difference, "tolerance", lambda dtype, _: tolerance(dtype, "cuda"))
    _, record = report(caplog, [torch.zeros(2)], [torch.tensor([0.0, 0.016])])
    assert record.levelname == "INFO"
    _, record = report(caplog, [torch.zeros(2)], [torch.tensor([0.0, 0.2])])
    assert record.levelname == "WARNING" and "more than 0.1: TEACHER.FAST" in record.getMessage()


class _Largest(TorchDispatchMode):
    """Notes how many bytes the largest tensor has that an operator gives, views left out."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not function.is_view:
            self.bytes = max(self.bytes, result.numel() * result.element_size())
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", [(2, 64, 20, 30), (600, 81), (5000,)])
def test_no_copy_of_all_outputs_is_made(caplog, monkeypatch, shape, dtype):
    monkeypatch.setattr(output_difference, "PIECE", 4096)
    before, after = torch.randn(shape), torch.randn(shape)
    if len(shape) == 4:
        after = after.to(memory_format=torch.channels_last)
    after = after.to(dtype)
    with _Largest() as largest:
        difference = log_output_difference([before], [after], are_maps=len(shape) == 4)
    scale = before.abs().max().item() if len(shape) == 4 else 1.0
    expected = (before.double() - after.double()).abs().max().item() / scale
    assert difference == pytest.approx(expected, rel=1e-6)
    assert 0 < largest.bytes <= 4 * 4096


def test_a_nan_of_any_level_is_seen(caplog):
    before = [torch.ones(2), torch.ones(2)]
    for after in ([1.0, math.nan], [math.nan, 1.0]):
        difference, record = report(caplog, before, [torch.full((2,), x) for x in after])
        assert math.isnan(difference) and record.levelname == "WARNING"


def test_no_samples_do_not_differ(caplog):
    empty = torch.zeros(0, 5)
    assert report(caplog, [empty], [empty])[0] == 0
    assert report(caplog, [], [])[0] == 0
    with pytest.raises(ValueError):
        log_output_difference([empty], [])


def test_maps_are_compared_relative_to_their_size(caplog):
    before, after = [torch.tensor([[500.0, -1.0]])], [torch.tensor([[500.1, -1.0]])]
    with caplog.at_level(logging.INFO, "eakd_det.modeling.teacher.output_difference"):
        assert log_output_difference(before, after, are_maps=True) == pytest.approx(2e-4, rel=1e-3)
    (record,) = caplog.records
    assert record.levelno == logging.INFO and "relative to the largest value" in record.message
