"""Cost of a training on several nodes, from what one process of it measures.

Measured here: bytes and order of the gradients that are reduced, messages between processes on the
CPU, data check, evaluation, checkpoint and restart. `scaling_model` makes a model of them.
"""

import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

import eakd_det
from eakd_det.engine.signals import StopNotice
from eakd_det.utils.files import read_json, write_json

from .batches import benchmark_config, make_batch, with_options
from .bench import CPU_SIZE, Bench
from .scaling_data import measure_data
from .scaling_model import Bucket, Reduction
from .scaling_tables import scaling_tables
from .steps import TrainerStep, build_step

# EA-DKD R101 -> R18, 8 images, bfloat16, on an H100 (docs/performance.md).
STEP_SECONDS = 0.164
STEPS = 3  # DDP orders its buckets anew after the first
EXCHANGES = 200


def run_scaling(bench: Bench) -> dict[str, Any]:
    """Measure what several nodes share and wait for, on the CPU, and report the model's tables.

    Returns:
        "reduction", as of `measure_reduction`, with its bytes; "step_seconds", of the model's
        tables; and the seconds and bytes of the other functions of this module.
    """
    cfg = benchmark_config(bench.args.config_file, bench.args.opts, bench.folder)
    cfg = with_options(cfg, {"MODEL.DEVICE": "cpu"})  # where a call ends when its work does
    size = CPU_SIZE if bench.args.size is None else bench.size
    batch = make_batch(size, cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    build, step = _timed(lambda: build_step(cfg, batch))
    reduction = measure_reduction(step)
    results: dict[str, Any] = {
        "step_seconds": STEP_SECONDS,
        "reduction": reduction,
        **measure_checkpoint(step, bench.folder),
        **{"import_seconds": measure_import(), "build_seconds": build},
        **measure_exchange(step.losses()),
        **measure_data(),
    }
    for text in scaling_tables(results):
        bench.report(f"{text}\n")
    return {**results, "reduction": {**reduction._asdict(), "bytes": reduction.bytes}}


def measure_reduction(step: TrainerStep) -> Reduction:
    """Record the gradients that DDP reduces in a training step, in a group of one process.

    Bytes and buckets are those of any number of processes. The step's model stays as it was.
    """
    trainer, clock = step.trainer, _Clock()
    model = trainer.model
    with _group_of_one():
        trainer.model = DistributedDataParallel(model)
        trainer.model.register_comm_hook(clock.reduced, _record)
        trainer.register_hooks([clock])
        for _ in range(STEPS):
            clock.reduced.clear()
            start = time.perf_counter()
            step()
            seconds = time.perf_counter() - start
        trainer.model = model
    buckets = [Bucket(size, (moment - start) / seconds) for size, moment in clock.reduced]
    return Reduction(buckets, (clock.end - start) / seconds)


def measure_checkpoint(step: TrainerStep, folder: str) -> dict[str, float]:
    """Save and load a checkpoint of a step that has run; seconds and bytes."""
    step.trainer.output_dir = folder
    checkpointer = step.trainer.build_checkpointer(step.trainer)
    save = _timed(lambda: checkpointer.save("model_0000000", iteration=0))[0]
    path = os.path.join(folder, "model_0000000.pth")
    load = _timed(lambda: checkpointer.load(path))[0]
    return {"save_seconds": save, "load_seconds": load, "checkpoint_bytes": os.path.getsize(path)}


def measure_import() -> float:
    """Return the seconds in which a new Python imports what tools/train_net.py runs."""
    environment = {**os.environ, "PYTHONPATH": str(Path(eakd_det.__file__).parents[1])}
    words = [sys.executable, "-c", "import eakd_det.engine.detection_run"]
    return _timed(lambda: subprocess.run(words, env=environment, check=True))[0]


def measure_exchange(losses: dict[str, float]) -> dict[str, float]:
    """Time what two processes exchange in a step on the CPU, apart from gradients.

    Args:
        losses: of a step, by name.

    Returns:
        Seconds of the all-reduce of a signal, which a step does not wait for, and of the gathering
        of the losses; bytes of the latter for each process.
    """
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_exchange, (losses, folder), nprocs=2)
        seconds = read_json(os.path.join(folder, "seconds.json"))
    return {**seconds, "losses_bytes": len(pickle.dumps({**losses, "data_time": 0.0}))}


def _exchange(rank: int, losses: dict[str, float], folder: str) -> None:
    store = distributed.FileStore(os.path.join(folder, "store"), 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    notice = StopNotice()
    exchanges = {"signal_seconds": notice.agreed, "losses_seconds": lambda: comm.gather(losses)}
    seconds = {}
    for name, exchange in exchanges.items():
        exchange()
        comm.synchronize()
        seconds[name] = median(_timed(exchange)[0] for _ in range(EXCHANGES))
    if rank == 0:
        write_json(os.path.join(folder, "seconds.json"), seconds)
    distributed.destroy_process_group()


class _Clock(HookBase):
    """Records when the buckets of a step are complete, and when its backward pass ends."""

    def __init__(self):
        self.reduced: list[tuple[int, float]] = []
        self.end = 0.0

    def after_backward(self) -> None:
        self.end = time.perf_counter()


def _record(
    reduced: list[tuple[int, float]], bucket: distributed.GradBucket
) -> torch.futures.Future[torch.Tensor]:
    """Record a bucket, as a hook of DDP; the gradients of one process are their own mean."""
    reduced.append((bucket.buffer().nbytes, time.perf_counter()))
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


@contextmanager
def _group_of_one() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Call a function; return its seconds and its result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result
