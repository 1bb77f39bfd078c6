"""Statistics of figures that were measured several times: intervals, tests, effect sizes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95  # level of the intervals


def mean_and_interval(values: Sequence[float]) -> dict[str, Any]:
    """Compute the mean of some values and its confidence interval (Student's t).

    Returns:
        "runs", their number; "mean"; "std", the sample standard deviation; "interval", the half
        width of the interval. The latter two are None for a single value, all three for none.
    """
    n = len(values)
    if n < 2:
        return {"runs": n, "mean": values[0] if n else None, "std": None, "interval": None}
    std = float(np.std(values, ddof=1))
    interval = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * std / n**0.5
    return {"runs": n, "mean": float(np.mean(values)), "std": std, "interval": interval}


def paired_test(differences: Sequence[float]) -> dict[str, float | None]:
    """Test the mean of paired differences against 0 (Student's t), and measure its size.

    Returns:
        "p", two-sided, and "effect", Cohen's d_z: the mean over the sample standard deviation
        (Lakens 2013, Frontiers in Psychology 4:863). Both are None for a single difference, for
        equal ones, which have no deviation, and if one is not finite.
    """
    values = np.asarray(differences)
    none = {"p": None, "effect": None}
    if len(values) < 2 or not np.isfinite(values).all():
        return none
    # Differences of decimal figures deviate by rounding alone.
    if np.ptp(values) <= 1e-9 * np.abs(values).max():
        return none
    effect = float(values.mean() / values.std(ddof=1))
    n = len(values)
    return {"p": float(2 * stats.t.sf(abs(effect) * n**0.5, n - 1)), "effect": effect}


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number (Holm 1979, Scandinavian Journal of Statistics 6:65).

    A hypothesis is rejected at a level if its corrected value is below it; the probability that
    any true one is rejected is at most that level, however the tests depend on each other.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)  # the smallest of n by n, the next one by n - 1, ...
    corrected = np.empty(len(p_values))
    corrected[order] = np.maximum.accumulate(np.asarray(p_values)[order] * factors)
    return np.minimum(corrected, 1).tolist()
