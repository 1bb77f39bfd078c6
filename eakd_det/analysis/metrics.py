"""metrics.json of a run: what Detectron2's JSONWriter has logged, by metric."""

import json
import os
from collections.abc import Iterator
from typing import Any

from eakd_det.utils.errors import UserError

METRICS = "metrics.json"
Series = list[tuple[int, float]]  # (iteration from 0, value)


def read_metrics(folder: str) -> dict[str, Series]:
    """The values of each metric over the iterations.

    A run that is resumed, or started afresh in the same folder, writes behind what is there: where
    a metric's iterations step back, all that was logged from there on is forgotten. Lines alone may
    step back, since an evaluation between two logs stands behind the second.

    Raises:
        UserError: there is no metrics.json, or a line of it is broken.
    """
    metrics: dict[str, Series] = {}
    for row in _rows(os.path.join(folder, METRICS)):
        iteration = row.pop("iteration")
        if any(name in metrics and metrics[name][-1][0] >= iteration for name in row):
            kept = {n: [p for p in points if p[0] < iteration] for n, points in metrics.items()}
            metrics = {name: points for name, points in kept.items() if points}
        for name, value in row.items():
            metrics.setdefault(name, []).append((iteration, value))
    return metrics


def _rows(path: str) -> Iterator[dict[str, Any]]:
    if not os.path.exists(path):
        raise UserError(
            f"There is no {path}: the folder is not that of a run, or the run has not logged yet."
        )
    with open(path) as f:
        for number, line in enumerate(f, 1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: {error}") from error
            if not isinstance(row, dict) or "iteration" not in row:
                raise UserError(f"{path}, line {number}: it names no iteration.")
            yield row
