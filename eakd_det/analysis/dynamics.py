"""Entropies and weights over a training, as the run has logged them (eakd_det.statistics)."""

import json
import os
from typing import Any

import numpy as np

from ..errors import UserError
from ..statistics import COLUMNS, PARTS
from .runs import Run

Dynamics = dict[str, dict[str, np.ndarray]]


def read_dynamics(run: Run) -> Dynamics:
    """Part of PARTS -> "iteration" and each of COLUMNS -> (logged iterations,).

    Where a resumed run has logged an iteration again, that stands.

    Raises:
        UserError: there is no metrics.json, a line of it is broken, or it has no entropies.
    """
    path = os.path.join(run.folder, "metrics.json")
    by_iteration: dict[int, dict[str, Any]] = {}
    for row in _rows(path):
        by_iteration[row["iteration"]] = by_iteration.get(row["iteration"], {}) | row
    found = {}
    for part in PARTS:
        keys = [f"distill/{part}/{column}" for column in COLUMNS]
        rows = [row for _, row in sorted(by_iteration.items()) if keys[0] in row]
        if rows:
            values = np.array([[row[key] for key in ("iteration", *keys)] for row in rows])
            found[part] = dict(zip(("iteration", *COLUMNS), values.T, strict=True))
    if not found:
        raise UserError(
            f"{path} has no entropies: the run did not distil, or ended before its first log."
        )
    return found


def _rows(path: str) -> list[dict[str, Any]]:
    if not os.path.exists(path):
        raise UserError(f"There is no {path}: the run has not logged yet, or is another folder.")
    rows = []
    with open(path) as f:
        for number, line in enumerate(f, 1):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: {error}") from error
    return rows
