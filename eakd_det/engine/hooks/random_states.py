"""A resumed run goes on as if it had never stopped: random state, and the place in the data."""

import itertools
import logging
import random
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2.data.common import AspectRatioGroupedDataset, MapDataset, ToIterableDataset
from detectron2.engine import HookBase
from detectron2.modeling import RetinaNet
from detectron2.solver import LRMultiplier
from detectron2.utils import comm
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Sampler

from eakd_det.utils.errors import UserError


def random_state() -> dict[str, Any]:
    """State of this process's random number generators (of its own GPU), in plain containers."""
    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Undo what has been drawn since `random_state`."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """What happens in the with-block draws nothing from the run's random numbers."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


class RandomStates(HookBase):
    """Lets the random numbers of each process go on in a resumed run, as if it had not stopped.

    They are kept with each checkpoint. The hook comes before the one that saves.
    """

    def __init__(self, period: int, model: nn.Module | None = None):
        """
        Args:
            period: of the checkpoints, in iterations.
            model: the buffers of which each process keeps its own, if there are several.
        """
        self.period = period
        self.model = model
        self.saved = self.loaded = None

    def after_step(self) -> None:
        next_iter = self.trainer.iter + 1
        if next_iter % self.period == 0 or next_iter >= self.trainer.max_iter:
            self.gather()

    def gather(self) -> None:
        """Take the states as they are, for the next checkpoint; called in every process."""
        self.saved = comm.gather(self._state())

    def before_train(self) -> None:
        state = self._own_state()
        if state is None:
            return
        if state.get("buffers"):  # as of this process, where the student's are those of the first
            for buffer, value in zip(self.model.buffers(), state["buffers"], strict=True):
                buffer.copy_(value)
        set_random_state(state["random"])

    def _own_state(self) -> dict[str, Any] | None:
        if self.loaded is None:
            return None
        if len(self.loaded) != comm.get_world_size():
            logging.getLogger(__name__).warning(
                f"The checkpoint is of {len(self.loaded)} processes and this run has "
                f"{comm.get_world_size()}: its random state cannot go on as it was."
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


class OptimizerSettings(HookBase):
    """Lets the config's learning rate and optimizer settings count in a resumed run.

    Detectron2 takes those of the checkpoint; of it only the momenta count here. What has changed is
    logged. The hook comes before LRScheduler.
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
            for key, value in configured.items():
                if key in group and group[key] != value:
                    name = "BASE_LR" if key == "initial_lr" else key.upper()
                    changes.append(f"{name} {group[key]} -> {value}")
            if not isinstance(self.scheduler, LRMultiplier):
                old = group.get("initial_lr", configured["initial_lr"])
                group["lr"] *= configured["initial_lr"] / old
            group.update(configured)
        if self.scheduler is not None:
            self.scheduler.base_lrs = [configured["initial_lr"] for configured in self.configured]
        if isinstance(self.scheduler, LRMultiplier):
            for group, rate in zip(groups, self.scheduler.get_lr(), strict=True):
                group["lr"] = rate
        log_changes(changes, self.trainer.start_iter, logging.getLogger(__name__))


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    settings = {"initial_lr": group["lr"], **group}  # which it has if a scheduler was made for it
    return {key: value for key, value in settings.items() if key not in ("params", "lr")}


def log_changes(changes: list[str], iteration: int, logger: logging.Logger) -> None:
    """Say which settings differ from the checkpoint's, each once."""
    if changes:
        text = ", ".join(dict.fromkeys(changes))
        logger.info(f"--resume: {text} from iteration {iteration} on")


class Stopwatch(HookBase):
    """Seconds of training, also over interruptions: it is kept in the checkpoints."""

    def __init__(self):
        self.seconds = 0.0

    def before_step(self) -> None:
        self._start = time.perf_counter()

    def after_step(self) -> None:
        self.seconds += time.perf_counter() - self._start

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds = state["seconds"]


class ProcessStates(RandomStates):
    """RandomStates that also lets a detector's run go on where it was in the data.

    Kept are, beside the random state, the seed of the training sampler, and a RetinaNet's running
    loss normalizer, which its state_dict lacks.
    """

    def __init__(self, student: nn.Module, loader: Iterable, parts: int, period: int):
        """
        Args:
            student: the model that is trained, itself.
            loader: Detectron2's training loader.
            parts: batches of it that a step takes.
            period: of the checkpoints, in iterations.
        """
        super().__init__(period)
        self.student = student
        self.loader = loader
        self.parts = parts

    def before_train(self) -> None:
        state = self._own_state()
        if self.trainer.start_iter:
            seed = self.loaded[0]["sampler_seed"] if self.loaded else None  # the same in each
            skip_batches(self.loader, self.trainer.start_iter * self.parts, seed=seed)
        if state is None:
            return
        if state["loss_normalizer"] is not None:
            self.student.loss_normalizer = state["loss_normalizer"]
        set_random_state(state["random"])

    def _state(self) -> dict[str, Any]:
        is_retina = isinstance(self.student, RetinaNet)
        return {
            **super()._state(),
            "sampler_seed": _seed(_samples(self.loader)),
            "loss_normalizer": self.student.loss_normalizer if is_retina else None,
        }


def _samples(loader: Iterable) -> ToIterableDataset | None:
    """Dataset that a training loader of Detectron2 batches: images, in the order of a sampler.

    None of a stream, and of a loader that is not Detectron2's.
    """
    inner = loader.dataset if isinstance(loader, AspectRatioGroupedDataset) else loader
    is_known = isinstance(inner, DataLoader) and isinstance(inner.dataset, ToIterableDataset)
    return inner.dataset if is_known else None


def _seed(samples: ToIterableDataset | None) -> int | None:
    """What the sampler shuffles by; None where there is no sampler, or no such seed."""
    return None if samples is None else vars(samples.sampler).get("_seed")


def skip_batches(loader: Iterable, num_batches: int, *, seed: int | None = None) -> None:
    """Let a new training loader of Detectron2 begin after the batches that a run has consumed.

    Nothing is read for it but the images' sizes. With DATALOADER.NUM_WORKERS up to 1 the images
    go on exactly; more workers read ahead in an order of their own, so that within a window of
    workers x batch an image may come twice or not at all. Images that were read and wait for
    others of their aspect ratio are read, and augmented, again.

    Args:
        seed: of the run's sampler; None if the new one has the same.

    Raises:
        UserError: images are grouped by aspect ratio, and the dataset does not give their sizes.
    """
    samples, is_grouped = _samples(loader), isinstance(loader, AspectRatioGroupedDataset)
    if samples is None:
        logging.getLogger(__name__).warning(
            "--resume: the training data are a stream, or come from a loader that is not "
            "Detectron2's: they start over from their beginning."
        )
        return
    if seed is not None:
        samples.sampler._seed = seed
    # The loader draws its workers' seeds from here, and leaves the run's own random numbers alone.
    inner = loader.dataset if is_grouped else loader
    own_seed = (torch.initial_seed() * 1_000_003 + num_batches) % 2**63  # differs by process
    inner.generator = torch.Generator().manual_seed(own_seed)
    if is_grouped:
        consumed, waiting = _replay(samples, loader.batch_size, num_batches)
    else:
        consumed, waiting = num_batches * loader.batch_size, []
    samples.sampler = _Later(samples.sampler, consumed, waiting)


def _replay(samples: ToIterableDataset, batch_size: int, num_batches: int) -> tuple[int, list[int]]:
    """Number of samples that grouping by aspect ratio takes for the batches, and those it keeps."""
    is_wide: dict[int, bool] = {}
    waiting = {True: [], False: []}
    images = samples.dataset
    records = images._dataset if isinstance(images, MapDataset) else images
    consumed = 0
    indices = iter(samples.sampler)
    while num_batches:
        index = next(indices)
        consumed += 1
        if index not in is_wide:
            record = records[index]
            if not {"width", "height"} <= record.keys():
                raise UserError(
                    f"--resume: the record of {record.get('file_name')} has no width and height, "
                    "by which images are grouped: let the dataset give them, or set "
                    "DATALOADER.ASPECT_RATIO_GROUPING False."
                )
            is_wide[index] = record["width"] > record["height"]
        bucket = waiting[is_wide[index]]
        bucket.append(index)
        if len(bucket) == batch_size:
            bucket.clear()
            num_batches -= 1
    return consumed, waiting[True] + waiting[False]


class _Later(Sampler):
    """An infinite sampler from some place on, behind a few indices that come first."""

    def __init__(self, sampler: Sampler, start: int, first: list[int]):
        self.sampler, self.start, self.first = sampler, start, first
        self._seed = vars(sampler).get("_seed")  # which the next checkpoint keeps

    def __iter__(self) -> Iterator[int]:
        yield from self.first
        yield from itertools.islice(self.sampler, self.start, None)
