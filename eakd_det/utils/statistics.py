"""Mean, deviation and interval of a figure that was measured several times."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95  # of the intervals


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Number, mean, sample standard deviation and half width of the mean's interval (Student's t).

    Returns:
        "runs", "mean", "std" and "interval"; the latter two are None for a single value.
    """
    n = len(values)
    if n < 2:
        return {"runs": n, "mean": values[0], "std": None, "interval": None}
    std = float(np.std(values, ddof=1))
    interval = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * std / n**0.5
    return {"runs": n, "mean": float(np.mean(values)), "std": std, "interval": interval}
