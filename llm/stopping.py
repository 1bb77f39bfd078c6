"""Interruption and resume of transformers' Trainer, as `eakd_det.engine` has them."""

import logging
from pathlib import Path
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from eakd_det.engine.hooks.optimizer_settings import apply_settings, log_changes
from eakd_det.engine.hooks.preemption import leave
from eakd_det.engine.signals import StopNotice

logger = logging.getLogger(__name__)


class Preemption(TrainerCallback):
    """Stops a run on a signal: a checkpoint, then SystemExit(128 + signal) in each process."""

    def __init__(self, notice: StopNotice):
        """
        Args:
            notice: of the run; it listens.
        """
        self.notice = notice
        self.number = 0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.number = self.notice.agreed()
        if self.number and state.global_step < state.max_steps:
            control.should_save, control.should_evaluate = True, False

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.number and state.global_step < state.max_steps:
            leave(self.number, state.global_step, logger)


class OptimizerSettings(TrainerCallback):
    """Applies the config's learning rate and optimizer settings to a resumed run.

    Trainer restores those of the checkpoint, of which only the moments are kept here. Changes are
    logged.
    """

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        optimizer: Optimizer,
        lr_scheduler: Any,
        **kwargs: Any,
    ) -> None:
        if not 0 < state.global_step < state.max_steps:
            return
        if not isinstance(lr_scheduler, LambdaLR):
            logger.warning("--resume: the learning rate is that of the checkpoint's scheduler.")
            return
        changes = []
        for number, group in enumerate(optimizer.param_groups):
            rate = optimizer.defaults["lr"]  # loading a checkpoint does not change the defaults
            configured = {"initial_lr": rate, **optimizer.defaults}
            configured["weight_decay"] = group["weight_decay"]
            if number == 0 or group["weight_decay"]:  # later groups may be biases and norms, with 0
                configured["weight_decay"] = args.weight_decay
            del configured["lr"]
            changes += apply_settings(group, configured, rate_key="LEARNING_RATE")
            group["lr"] = rate * lr_scheduler.lr_lambdas[number](lr_scheduler.last_epoch)
        lr_scheduler.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        if state.is_world_process_zero:
            log_changes(changes, state.global_step, logger)


def newest_checkpoint(folder: str) -> str | None:
    """Return the newest complete checkpoint of a run, or None without one.

    Trainer writes the file of its own state last.
    """
    states = Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*/{TRAINER_STATE_NAME}")
    folders = [path.parent for path in states if path.parent.name.rpartition("-")[2].isdigit()]
    newest = max(folders, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    return None if newest is None else str(newest)
