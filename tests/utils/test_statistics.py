import pytest
from scipy import stats

from eakd_det.utils.statistics import holm, mean_and_interval, paired_test


def test_three_values():
    figures = mean_and_interval([1.0, 2.0, 6.0])
    assert (figures["runs"], figures["mean"]) == (3, 3.0)
    assert figures["std"] == pytest.approx(7**0.5)
    # Of Student's t with 2 degrees of freedom, 4.302653 leaves 2.5 % above it.
    assert figures["interval"] == pytest.approx(4.302653 * (7 / 3) ** 0.5, rel=1e-6)


def test_one_value_has_no_deviation():
    assert mean_and_interval([2.5]) == {"runs": 1, "mean": 2.5, "std": None, "interval": None}


def test_a_paired_test():
    values = [0.5, 0.2, 0.8, -0.1]
    found = paired_test(values)
    assert found["p"] == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert found["effect"] == pytest.approx(0.35 / 0.3872983)
    assert paired_test([-x for x in values])["effect"] == -found["effect"]


@pytest.mark.parametrize("values", [[1.0], [0.5, 0.5], [0.0, 0.0], [75.6 - 75.1, 74.7 - 74.2]])
def test_no_test_without_deviation(values):
    assert paired_test(values) == {"p": None, "effect": None}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_test_of_values_that_are_not_finite(value):
    assert paired_test([0.5, 0.2, value]) == {"p": None, "effect": None}


def test_no_value():
    empty = {"runs": 0, "mean": None, "std": None, "interval": None}
    assert mean_and_interval([]) == empty


def test_holm():
    # 0.01 by 4, 0.02 by 3, then 2 * 0.03 is not below the one before, then 1 * 0.2.
    assert holm([0.03, 0.01, 0.2, 0.02]) == pytest.approx([0.06, 0.04, 0.2, 0.06])
    assert holm([0.02, 0.021]) == pytest.approx([0.04, 0.04])  # never below a smaller one's
    assert holm([0.6, 0.7]) == [1, 1] and holm([]) == []
