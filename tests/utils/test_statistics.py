import pytest

from eakd_det.utils.statistics import mean_and_interval


def test_three_values():
    figures = mean_and_interval([1.0, 2.0, 6.0])
    assert (figures["runs"], figures["mean"]) == (3, 3.0)
    assert figures["std"] == pytest.approx(7**0.5)
    # Of Student's t with 2 degrees of freedom, 4.302653 leaves 2.5 % above it.
    assert figures["interval"] == pytest.approx(4.302653 * (7 / 3) ** 0.5, rel=1e-6)


def test_one_value_has_no_deviation():
    assert mean_and_interval([2.5]) == {"runs": 1, "mean": 2.5, "std": None, "interval": None}
