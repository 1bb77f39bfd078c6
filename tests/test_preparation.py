import logging

import pytest
import torch

from eakd_det.preparation import report_difference


@pytest.mark.parametrize(
    ("difference", "dtype", "level"),
    [
        (5e-4, torch.float32, logging.INFO),
        (2e-3, torch.float32, logging.WARNING),
        (float("nan"), torch.float32, logging.WARNING),
        (2e-3, torch.float64, logging.INFO),
    ],
)
def test_levels(caplog, difference, dtype, level):
    before = [torch.zeros(0, 3), torch.tensor([[1.0, -4.0]])]
    after = [before[0], before[1].to(dtype) + difference]
    with caplog.at_level(logging.INFO):
        report_difference(before, after)
    [record] = caplog.records
    assert record.levelno == level
    assert f"differ by at most {difference:.1e}" in record.message
    assert "(largest: 4)" in record.message
    assert ("TEACHER.FAST" in record.message) == (level == logging.WARNING)


def test_nothing_to_compare(caplog):
    with caplog.at_level(logging.INFO):
        report_difference([torch.zeros(0, 3)], [torch.zeros(0, 3)])
    assert not caplog.records
