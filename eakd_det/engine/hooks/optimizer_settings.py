"""Learning rate and optimizer settings of a resumed run."""

import logging
from typing import Any

from detectron2.engine import HookBase
from detectron2.solver import LRMultiplier
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class OptimizerSettings(HookBase):
    """Applies the config's learning rate and optimizer settings to a resumed run.

    Detectron2 restores those of the checkpoint, of which only the momenta are kept here. Changes
    are logged.
    """

    def __init__(self, optimizer: Optimizer, scheduler: LRScheduler | None = None):
        """
        Args:
            optimizer: as configured; no checkpoint has been loaded into it.
            scheduler: of the learning rate; None if it is yet to be made for the optimizer.
        """
        self.optimizer, self.scheduler = optimizer, scheduler
        self.configured = [_settings(group) for group in optimizer.param_groups]

    def before_train(self) -> None:
        if not 0 < self.trainer.start_iter < self.trainer.max_iter:
            return
        groups, changes = self.optimizer.param_groups, []
        for group, configured in zip(groups, self.configured, strict=True):
            before = group.get("initial_lr", configured["initial_lr"])
            changes += apply_settings(group, configured, rate_key="BASE_LR")
            if not isinstance(self.scheduler, LRMultiplier):
                group["lr"] *= configured["initial_lr"] / before
        if self.scheduler is not None:
            self.scheduler.base_lrs = [configured["initial_lr"] for configured in self.configured]
        if isinstance(self.scheduler, LRMultiplier):
            for group, rate in zip(groups, self.scheduler.get_lr(), strict=True):
                group["lr"] = rate
        log_changes(changes, self.trainer.start_iter, logging.getLogger(__name__))


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    settings = {"initial_lr": group["lr"], **group}  # a scheduler has set "initial_lr" already
    return {key: value for key, value in settings.items() if key not in ("params", "lr")}


def apply_settings(
    group: dict[str, Any], configured: dict[str, Any], *, rate_key: str
) -> list[str]:
    """Set the settings of an optimizer's parameter group.

    Args:
        group: of a resumed optimizer.
        configured: the settings to apply, the learning rate as "initial_lr".
        rate_key: configuration key of the learning rate.

    Returns:
        The settings that differed, as "NAME old -> new".
    """
    changes = []
    for key, value in configured.items():
        if key in group and group[key] != value:
            name = rate_key if key == "initial_lr" else key.upper()
            changes.append(f"{name} {group[key]} -> {value}")
    group.update(configured)
    return changes


def log_changes(changes: list[str], iteration: int, logger: logging.Logger) -> None:
    """Log the settings that differ from the checkpoint's, each once."""
    if changes:
        text = ", ".join(dict.fromkeys(changes))
        logger.info(f"--resume: {text} from iteration {iteration} on")
