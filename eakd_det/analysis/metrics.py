"""Loading of a run's metrics.json, which Detectron2's JSONWriter writes."""

import json
import os
from collections.abc import Iterator
from typing import Any

from eakd_det.utils.errors import UserError

METRICS = "metrics.json"
Series = list[tuple[int, float]]  # (iteration from 0, value)


def read_metrics(folder: str) -> dict[str, Series]:
    """Load the values of each metric over the iterations.

    A run that is resumed, or started again in the same folder, appends to the file: if a metric's
    iterations step back, all values from the earlier iteration on are dropped. A line of another
    metric may step back, since an evaluation between two logs is written after the second.

    Raises:
        UserError: metrics.json is missing, or a line of it is broken.
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
            f"{path} does not exist: the folder is not that of a run, or nothing is logged yet."
        )
    with open(path) as f:
        for number, line in enumerate(f, 1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: {error}") from error
            if not isinstance(row, dict) or "iteration" not in row:
                raise UserError(f"{path}, line {number}: it has no iteration.")
            yield row
