"""Checkpoint folders of transformers' Trainer: complete ones, and what a killed process left."""

import json
import logging
from pathlib import Path
from socket import gethostname

from detectron2.utils import comm
from transformers import TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from eakd_det.utils.errors import UserError
from eakd_det.utils.files import unused_path

logger = logging.getLogger(__name__)

RANDOM_STATES = "rng_state*.pth"  # one file of each process; none with SAVE_ONLY_MODEL


def resumable_steps(folder: str) -> set[int]:
    """Return the steps of the complete checkpoints from which a run can resume."""
    complete = (path for path in _folders(folder) if _is_written(path))
    return {_step(path) for path in complete if saved_processes(str(path))}


def checkpoint_to_resume(args: TrainingArguments) -> str | None:
    """Return the newest checkpoint that is complete on all machines, or None without one.

    Later ones that are not complete on all machines are set aside.

    Raises:
        UserError: there are checkpoints, but none is on all machines (TRAINING.SAVE_ON_EACH_NODE).
    """
    found = comm.all_gather((gethostname(), resumable_steps(args.output_dir)))
    if not args.save_on_each_node:
        found = found[:1]  # of the folder that all machines share
    common = set.intersection(*(steps for _, steps in found))
    last = max(set.union(*(steps for _, steps in found)), default=0)
    step = max(common, default=0)
    if last and not step:
        lacking = sorted({host for host, steps in found if last not in steps})
        raise UserError(
            f"{_path(args.output_dir, last)} is missing on {', '.join(lacking)}, and no checkpoint "
            "is on all machines: copy it there, or name an OUTPUT_DIR on a disk that all share."
        )
    if args.should_save:
        set_aside_incomplete(args.output_dir, step)
    return str(_path(args.output_dir, step)) if step else None


def saved_processes(checkpoint: str) -> int:
    """Return the number of processes that saved a checkpoint."""
    return len(list(Path(checkpoint).glob(RANDOM_STATES)))


def set_aside_incomplete(folder: str, step: int) -> None:
    """Rename checkpoints after a step that a killed process has not completed on all machines.

    Their files would be mixed with those of the next checkpoint of the same step. They are not
    removed: they may be weights that the user has kept. Complete ones of SAVE_ONLY_MODEL stay.
    """
    for path in _folders(folder):
        if _step(path) > step and (saved_processes(str(path)) or not _is_written(path)):
            aside = unused_path(str(path.with_name(f"incomplete-{path.name}")))
            logger.warning("%s is incomplete, of a process that was killed: now %s", path, aside)
            path.rename(aside)


def _folders(folder: str) -> list[Path]:
    found = Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
    return [path for path in found if path.name.rpartition("-")[2].isdigit() and path.is_dir()]


def _path(folder: str, step: int) -> Path:
    return Path(folder, f"{PREFIX_CHECKPOINT_DIR}-{step}")


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _is_written(path: Path) -> bool:
    """Return True for a complete checkpoint; Trainer writes its own state last."""
    try:
        json.loads((path / TRAINER_STATE_NAME).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return True
