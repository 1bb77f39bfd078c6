"""Entropies and weights over the training, as a run logs them."""

import numpy as np

from eakd_det.distillers.entropy_statistics import COLUMNS, PARTS
from eakd_det.utils.errors import UserError

from .metrics import METRICS, read_metrics
from .runs import Run

Dynamics = dict[str, dict[str, np.ndarray]]


def read_dynamics(run: Run) -> Dynamics:
    """Load the entropies and weights that a run has logged.

    Returns:
        Part of PARTS -> "iteration" and each of COLUMNS -> (logged iterations,).

    Raises:
        UserError: metrics.json is missing, broken, or has no entropies.
    """
    metrics = read_metrics(run.folder)
    found = {}
    for part in PARTS:
        keys = [f"distill/{part}/{column}" for column in COLUMNS]
        if keys[0] in metrics:
            columns = [[iteration for iteration, _ in metrics[keys[0]]]]
            columns += [[value for _, value in metrics[key]] for key in keys]
            found[part] = dict(zip(("iteration", *COLUMNS), map(np.array, columns), strict=True))
    if not found:
        raise UserError(
            f"{run.folder}/{METRICS} has no entropies: the run did not distil, or ended before its "
            "first log."
        )
    return found
