"""Parts of the benchmark: their tables, and their figures as a dict for JSON."""

import argparse
import tempfile
from collections.abc import Callable
from typing import Any

from .bench import Bench
from .detection import run_detection, run_digits
from .goals import table_of_goals
from .growth import run_growth
from .losses import run_losses
from .pooling import run_pooling
from .scaling import run_scaling
from .timing import machine

Part = Callable[[Bench], Any]

# Name in --only -> function that measures, reports tables, and returns figures; more parts are in
# the rooms of classifiers and language models.
PARTS: dict[str, Part] = {
    "detection": run_detection,
    "digits": run_digits,
    "losses": run_losses,
    "pooling": run_pooling,
    "growth": run_growth,
    "scaling": run_scaling,
}


def run(
    args: argparse.Namespace, parts: dict[str, Part], report: Callable[[str], object]
) -> dict[str, Any]:
    """Run the parts that the command line names, and report on a GPU how the goals are met.

    Args:
        args: of `tools/benchmark.py`.
        parts: all that the command line names, and others; they run in this order.
        report: called with the text of each table.

    Returns:
        Part -> figures; "machine", what they depend on; "measured", all columns of the tables.
    """
    results: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, folder, report)
        for name, part in parts.items():
            if name in args.only:
                results[name] = part(bench)
    if bench.on_gpu:
        report(table_of_goals(bench.measured))
    return {**results, "measured": bench.measured}
