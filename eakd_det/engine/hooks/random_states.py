"""Random numbers of each process, which go on in a resumed run."""

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn


def random_state() -> dict[str, Any]:
    """Return the state of this process's random number generators in plain containers.

    Of the GPUs it has the current one alone.
    """
    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set this process's random number generators to a state of `random_state`."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Restore the random state at the end of the with-block."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


class RandomStates(HookBase):
    """Saves the random state of each process with a checkpoint, and restores it in a resumed run.

    The name of the class is the key of its state in checkpoints.
    """

    def __init__(self, period: int, model: nn.Module | None = None):
        """
        Args:
            period: iterations between two checkpoints.
            model: module whose buffers are saved per process, if there are several processes.
        """
        self.period = period
        self.model = model
        self.saved = self.loaded = None

    def after_step(self) -> None:
        next_iter = self.trainer.iter + 1
        if next_iter % self.period == 0 or next_iter >= self.trainer.max_iter:
            self.gather()

    def gather(self) -> None:
        """Gather the present states for the next checkpoint; to be called in every process."""
        self.saved = comm.gather(self._state())

    def before_train(self) -> None:
        state = self._own_state()
        if state is None:
            return
        if state.get("buffers"):  # the checkpoint's "model" has those of the first process
            for buffer, value in zip(self.model.buffers(), state["buffers"], strict=True):
                buffer.copy_(value)
        set_random_state(state["random"])

    def _own_state(self) -> dict[str, Any] | None:
        """Return the loaded state of this process, if there is one for as many processes."""
        if self.loaded is None:
            return None
        if len(self.loaded) != comm.get_world_size():
            logging.getLogger(__name__).warning(
                f"The checkpoint is of {len(self.loaded)} processes and this run has "
                f"{comm.get_world_size()}: the random states are not restored."
            )
            return None
        return self.loaded[comm.get_rank()]

    def _state(self) -> dict[str, Any]:
        buffers = self.model.buffers() if self.model and comm.get_world_size() > 1 else ()
        return {"random": random_state(), "buffers": [buffer.cpu() for buffer in buffers]}

    def state_dict(self) -> dict[str, Any]:
        return {"processes": self.saved} if self.saved else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loaded = state["processes"]
