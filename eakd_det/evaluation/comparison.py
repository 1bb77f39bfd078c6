"""Tables of the results of several detectors."""

import logging
from itertools import chain
from typing import Any

from tabulate import tabulate


def compare_results(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Log and return a table of the AP columns of several detectors, task by task.

    Args:
        results: title -> task ("bbox", "segm") -> metric -> value, or with a level more for several
            datasets, as Detectron2's evaluation returns them.
    """
    results = {title: _by_task(of) for title, of in results.items()}
    tables = []
    for task in dict.fromkeys(chain.from_iterable(results.values())):
        having = {title: of[task] for title, of in results.items() if task in of}
        columns = [m for m in next(iter(having.values())) if not m.startswith("AP-")]
        rows = [[title, *(metrics[m] for m in columns)] for title, metrics in having.items()]
        tables.append(tabulate(rows, headers=[task, *columns], floatfmt=".1f"))
    text = "\n\n".join(tables)
    logging.getLogger(__name__).info("Evaluation side by side:\n%s", text)
    return text


def _by_task(results: dict[str, Any], prefix: str = "") -> dict[str, dict[str, float]]:
    """Collect the innermost dicts, which hold metrics, under their path of keys."""
    found = {}
    for name, of in results.items():
        is_task = not any(isinstance(value, dict) for value in of.values())
        found.update({prefix + name: of} if is_task else _by_task(of, f"{prefix}{name}/"))
    return found
