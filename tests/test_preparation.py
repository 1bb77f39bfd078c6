import logging

import pytest
import torch

from eakd_det.preparation import report_difference


def report(caplog, before, after):
    """The difference, and the one line about it."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "eakd_det.preparation"):
        difference = report_difference(before, after)
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


def test_no_samples_do_not_differ(caplog):
    empty = torch.zeros(0, 5)
    assert report(caplog, [empty], [empty])[0] == 0
    assert report(caplog, [], [])[0] == 0
    with pytest.raises(ValueError):
        report_difference([empty], [])


def test_maps_are_compared_relative_to_their_size(caplog):
    before, after = [torch.tensor([[500.0, -1.0]])], [torch.tensor([[500.1, -1.0]])]
    with caplog.at_level(logging.INFO, "eakd_det.preparation"):
        assert report_difference(before, after, are_maps=True) == pytest.approx(2e-4, rel=1e-3)
    (record,) = caplog.records
    assert record.levelno == logging.INFO and "relative to the largest value" in record.message
