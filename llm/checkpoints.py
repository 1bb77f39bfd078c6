"""Checkpoint folders of transformers' Trainer: complete ones, and what a killed process left."""

import json
import logging
import shutil
from pathlib import Path
from socket import gethostname

from detectron2.utils import comm
from transformers import TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from eakd_det.utils.errors import UserError

from .restart import of_first

logger = logging.getLogger(__name__)

RANDOM_STATES = "rng_state*.pth"  # one file of each process; none with SAVE_ONLY_MODEL


def newest_checkpoint(folder: str) -> str | None:
    """Return the newest checkpoint from which a run can resume, or None without one."""
    complete = (path for path in _folders(folder) if _is_written(path))
    with_states = (path for path in complete if saved_processes(str(path)))
    newest = max(with_states, key=_step, default=None)
    return None if newest is None else str(newest)


def checkpoint_to_resume(args: TrainingArguments) -> str | None:
    """Return the first process's newest checkpoint, and remove incomplete ones.

    Raises:
        UserError: another machine does not have it (with TRAINING.SAVE_ON_EACH_NODE).
    """
    checkpoint = of_first(newest_checkpoint(args.output_dir))
    if args.should_save:
        remove_incomplete(args.output_dir)
    lacks = checkpoint is not None and not Path(checkpoint).exists()
    hosts = {host for host, is_lacking in comm.all_gather((gethostname(), lacks)) if is_lacking}
    if hosts:
        raise UserError(
            f"{checkpoint} of {of_first(gethostname())} (the first process) is missing on "
            f"{', '.join(sorted(hosts))}: copy it there, or name an OUTPUT_DIR on a disk that all "
            "machines share."
        )
    return checkpoint


def saved_processes(checkpoint: str) -> int:
    """Return the number of processes that saved a checkpoint."""
    return len(list(Path(checkpoint).glob(RANDOM_STATES)))


def remove_incomplete(folder: str) -> None:
    """Remove checkpoints that a killed process has not completed.

    Their files would be mixed with those of the next checkpoint of the same step.
    """
    for path in _folders(folder):
        if not _is_written(path):
            logger.warning("%s is incomplete, of a process that was killed: removed", path)
            shutil.rmtree(path)


def _folders(folder: str) -> list[Path]:
    found = Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
    return [path for path in found if path.name.rpartition("-")[2].isdigit() and path.is_dir()]


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _is_written(path: Path) -> bool:
    """Return True for a complete checkpoint; Trainer writes its own state last."""
    try:
        json.loads((path / TRAINER_STATE_NAME).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return True
