"""Tables of the model of a training on several nodes."""

from collections.abc import Iterable, Sequence
from typing import Any

from tabulate import tabulate

from .scaling_model import Network, Reduction, checkpoint_interval, lost_share

NODES = (1, 2, 4, 8)
GBIT = (100, 200, 400)
FASTER = (1, 2, 4)  # steps of this many times the speed: fewer images, or another device
DAY = 24 * 3600.0
FAILURES = (1, 10, 100)  # days of a node between two failures
CONNECT = 45.0  # seconds, assumed: torchrun waits 30 for other machines, CUDA and NCCL take 15
MEASURED = {
    "import_seconds": "import",
    "build_seconds": "build of student and teacher",
    "load_seconds": "load of a checkpoint",
    "save_seconds": "save of a checkpoint",
    "check_seconds": "check of COCO's training data, first",
    "cached_check_seconds": "the same, images in the cache",
    "read_seconds": "reading of COCO's annotations by Detectron2, each process",
    "coco_eval_seconds": "COCOeval of COCO's validation data, first process",
    "signal_seconds": "exchange of a signal, two processes",
    "losses_seconds": "gathering of the losses, two processes",
}


def scaling_tables(results: dict[str, Any]) -> list[str]:
    """Return the tables of what was measured, and of the model's steps and checkpoints.

    Args:
        results: as of `run_scaling`; "reduction" is a Reduction.
    """
    reduction, step = results["reduction"], results["step_seconds"]
    restart = CONNECT + sum(results[f"{x}_seconds"] for x in ("import", "build", "load"))
    return [
        _sizes(reduction, results),
        tabulate([(text, results[name]) for name, text in MEASURED.items()], ["", "seconds"]),
        step_table(reduction, [step / x for x in FASTER]),
        checkpoint_table(step, results["save_seconds"], restart),
    ]


def _sizes(reduction: Reduction, results: dict[str, Any]) -> str:
    buckets = ", ".join(f"{b.bytes / 1e6:.1f} ({b.ready:.2f})" for b in reduction.buckets)
    return (
        f"Gradients of a step: {reduction.bytes / 1e6:.1f} MB; {reduction.overlapped:.0%} of them "
        f"before the backward pass ends, at {reduction.end:.2f} of the step. Buckets, in MB, and "
        f"the share of the step at which each is complete: {buckets}.\n"
        f"A checkpoint: {results['checkpoint_bytes'] / 1e6:.1f} MB. A process sends its losses, "
        f"{results['losses_bytes']} bytes a step, and all send the detections of COCO's validation "
        f"data, {results['detections_bytes'] / 1e6:.0f} MB, to the first."
    )


def step_table(reduction: Reduction, steps: Iterable[float]) -> str:
    """Format the time and the efficiency of steps by number of nodes and network.

    Args:
        steps: seconds of the step of one process.
    """
    rows = []
    for seconds in steps:
        for gbit in GBIT:
            network = Network(gbit)
            times = [network.step(reduction, seconds, nodes) for nodes in NODES]
            cells = [f"{1000 * x:.1f} ({seconds / x:.0%})" for x in times]
            rows.append((f"{1000 * seconds:.0f}", gbit, *cells))
    headings = ["step, ms", "Gb/s", *(f"{n} node{'s' * (n > 1)}" for n in NODES)]
    title = f"ms of a step (efficiency), {Network(0).gpus} GPUs a node, as many images a GPU"
    return f"{title}\n\n{tabulate(rows, headings, disable_numparse=True)}"


def checkpoint_table(step: float, save: float, restart: float, nodes: Sequence[int] = NODES) -> str:
    """Format the best CHECKPOINT_PERIOD by failures of a node, and the time that is lost."""
    rows = []
    for days in FAILURES:
        cells = []
        for number in nodes:
            failure = days * DAY / number
            interval = checkpoint_interval(save, failure)
            lost = lost_share(interval, save, restart, failure)
            cells.append(f"{round(interval / step)} ({lost:.2%})")
        rows.append((days, *cells))
    headings = ["days of a node", *(f"{n} node{'s' * (n > 1)}" for n in nodes)]
    title = (
        f"CHECKPOINT_PERIOD (share of time lost); steps of {1000 * step:.0f} ms, {save:.1f} s a "
        f"checkpoint, {restart:.0f} s a restart"
    )
    return f"{title}\n\n{tabulate(rows, headings, disable_numparse=True)}"
