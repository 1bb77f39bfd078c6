"""Start of a run in several processes, and its restart by torchrun or with another number."""

import logging
import math
import os
from typing import Any

import torch
from accelerate import PartialState
from detectron2.config import CfgNode
from detectron2.utils import comm

from eakd_det.engine.process_group import limit_exchanges, time_limit
from eakd_det.engine.rendezvous import use_own_store
from eakd_det.engine.restart import changed_step, is_restart
from eakd_det.engine.run_record import add_to_record, read_record

from .config import training_arguments

logger = logging.getLogger(__name__)

BATCH = "batch"  # key of run.json: of the first start, devices and micro-batches of each


def connect(cfg: CfgNode) -> None:
    """Connect the processes of a launch, which then wait TRAINING.DDP_TIMEOUT for one another."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return
    timeout = time_limit(cfg.TRAINING.DDP_TIMEOUT)
    use_own_store(timeout)
    if cfg.TRAINING.USE_CPU or not torch.accelerator.is_available():
        # Without it processes that have no GPU are not connected, and each trains the run.
        os.environ["ACCELERATE_USE_CPU"] = "true"
        # TrainingArguments leaves the timeout out.
        PartialState(cpu=True, backend=cfg.TRAINING.DDP_BACKEND, timeout=timeout)
    training_arguments(cfg)
    limit_exchanges(timeout)


def of_first(value: Any) -> Any:
    """Return the value of the first process in all processes, each of which calls it."""
    return comm.all_gather(value)[0]


def start_flags(output_dir: str, resume: bool, overwrite: bool) -> tuple[bool, bool]:
    """Return `resume` and `overwrite`; a restart by torchrun resumes the run of its launch."""
    return (True, False) if is_restart(output_dir) else (resume, overwrite)


def same_global_batch(cfg: CfgNode, devices: int) -> CfgNode:
    """Return the config of a resumed run for another number of devices, with the same global batch.

    It is the config itself for as many devices as at the run's first start, and where keys of the
    batch have been changed since then: these have the last word.

    Args:
        devices: of this start, over all processes.

    Raises:
        UserError: there are more devices than examples in a step.
    """
    first = of_first(read_record(cfg.OUTPUT_DIR).get(BATCH))
    if first is None or devices == first["devices"] or _batch(cfg, first["devices"]) != first:
        return cfg
    examples = math.prod(first.values())
    micro_batches = first["devices"] * first["accumulate"]
    adapted = cfg.clone()
    kept, accumulate, adapted.TRAINING.LEARNING_RATE = changed_step(
        examples, cfg.TRAINING.LEARNING_RATE, devices, micro_batches
    )
    adapted.TRAINING.GRADIENT_ACCUMULATION_STEPS = accumulate
    adapted.TRAINING.PER_DEVICE_TRAIN_BATCH_SIZE = kept // (devices * accumulate)
    if comm.is_main_process():
        _log_batch(cfg, adapted, (first["devices"], devices), (examples, kept))
    return adapted


def record_batch(cfg: CfgNode, devices: int) -> None:
    """Record the batch of a run's first start, or one that its config has changed, in run.json."""
    if not comm.is_main_process():
        return
    first = read_record(cfg.OUTPUT_DIR).get(BATCH)
    if first is None or _batch(cfg, first["devices"]) != first:
        add_to_record(cfg.OUTPUT_DIR, **{BATCH: _batch(cfg, devices)})


def _batch(cfg: CfgNode, devices: int) -> dict[str, int]:
    """Return the factors of a config's global batch on a number of devices."""
    per_device = cfg.TRAINING.PER_DEVICE_TRAIN_BATCH_SIZE
    accumulate = cfg.TRAINING.GRADIENT_ACCUMULATION_STEPS
    return {"devices": devices, "per_device": per_device, "accumulate": accumulate}


def _log_batch(
    cfg: CfgNode, adapted: CfgNode, devices: tuple[int, int], examples: tuple[int, int]
) -> None:
    """Log what has been changed; `devices` and `examples` of a step at the first start and now."""
    keys = ("PER_DEVICE_TRAIN_BATCH_SIZE", "GRADIENT_ACCUMULATION_STEPS", "LEARNING_RATE")
    before, after = cfg.TRAINING, adapted.TRAINING
    changes = [f"{k} {before[k]:g} -> {after[k]:g}" for k in keys if before[k] != after[k]]
    text = f"--resume: {devices[0]} processes at the first start, {devices[1]} now: "
    text += ", ".join(changes)
    if examples[0] == examples[1]:
        logger.info("%s; a step has %d examples as before", text, examples[0])
    else:
        logger.warning(
            "%s; a step has %d examples in place of %d, which %d processes cannot share evenly",
            *(text, examples[1], examples[0], devices[1]),
        )
