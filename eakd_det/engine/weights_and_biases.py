"""Runs at Weights & Biases, which go on in resumed trainings."""

import importlib.util
from typing import Any

from eakd_det.utils.errors import UserError

from .run_record import add_to_record, read_record

KEY = "wandb"  # in run.json: id of the run at Weights & Biases


def start_wandb(project: str, output_dir: str, *, is_training: bool) -> None:
    """Start to send TensorBoard's data to a project; a resumed training continues its run there.

    Args:
        output_dir: of the run; its run.json keeps the id of a training.

    Raises:
        UserError: wandb is not installed.
    """
    if importlib.util.find_spec("wandb") is None:
        raise UserError("--wandb: the package wandb is not installed; pip install wandb.")
    import wandb

    options = {"project": project, "dir": output_dir, "sync_tensorboard": True}
    if is_training and output_dir:
        start_or_continue(output_dir, **options)
    else:
        wandb.init(**options)


def start_or_continue(output_dir: str, **options: Any) -> Any:
    """Return the run of wandb whose id is in run.json, or a new one, whose id is recorded there.

    Args:
        options: of wandb.init.
    """
    import wandb

    known = read_record(output_dir).get(KEY)
    run = wandb.init(**options, **({"id": known, "resume": "allow"} if known else {}))
    add_to_record(output_dir, **{KEY: run.id})
    return run
