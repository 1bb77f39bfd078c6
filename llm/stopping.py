"""Interruption and resume of transformers' Trainer, as `eakd_det.engine` has them."""

import logging
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from eakd_det.engine.hooks.optimizer_settings import apply_settings, log_changes
from eakd_det.engine.hooks.preemption import leave
from eakd_det.engine.signals import StopNotice

from .checkpoints import saved_processes

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


class ResumableTrainer(Trainer):
    """transformers.Trainer whose checkpoints are complete as soon as its own state is written."""

    def _save_rng_state(self, output_dir: str) -> None:
        """Save the random states of all processes, before the state that completes a checkpoint."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Restore the random states of as many processes as there are."""
        number = self.args.world_size
        if checkpoint is not None and not self.args.save_on_each_node:  # a node has its own alone
            saved = saved_processes(checkpoint)
            if saved != number:
                if self.is_world_process_zero():
                    logger.warning(
                        f"The checkpoint is of {saved} processes and this run has {number}: the "
                        "random states are not restored."
                    )
                return
        super()._load_rng_state(checkpoint)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Train an epoch, unless the resumed run has completed its last step before."""
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **kwargs)
        else:
            self.control.should_training_stop = True
