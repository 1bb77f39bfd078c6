"""Mean, standard deviation and confidence interval of a figure that was measured several times."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95  # level of the intervals


def mean_and_interval(values: Sequence[float]) -> dict[str, Any]:
    """Compute the mean of some values and its confidence interval (Student's t).

    Returns:
        "runs", their number; "mean"; "std", the sample standard deviation; "interval", the half
        width of the interval. The latter two are None for a single value.
    """
    n = len(values)
    if n < 2:
        return {"runs": n, "mean": values[0], "std": None, "interval": None}
    std = float(np.std(values, ddof=1))
    interval = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * std / n**0.5
    return {"runs": n, "mean": float(np.mean(values)), "std": std, "interval": interval}
