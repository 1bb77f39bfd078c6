"""One optimizer step: gradient accumulation, mixed precision, and losses that are watched."""

import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .checkpoint import write_atomically
from .errors import UserError
from .idle import IdleLosses
from .statistics import LOG_PERIOD

MOST_IMAGES = 16  # that a message names
ADVICE = "A lower SOLVER.BASE_LR, more SOLVER.WARMUP_ITERS or SOLVER.CLIP_GRADIENTS often helps."


def log_step(images: int, parts: int, learning_rate: float, max_iter: int) -> None:
    """Say what a step of the run takes: `images` over all processes, in `parts` one by one."""
    processes = comm.get_world_size()
    logging.getLogger(__name__).info(
        f"A step takes {images} images: {processes} process(es) with {parts} part(s) of "
        f"{images // (processes * parts)}; base learning rate {learning_rate}, "
        f"{max_iter} iterations"
    )


@dataclass
class Taken:
    """A step whose losses have not been read from the device.

    Attributes:
        iteration: of the run.
        losses: (number of losses,) mean of each over the parts.
        learns: name of each loss -> whether it has a gradient.
        data_time: seconds that its data took.
        images: names of its images.
    """

    iteration: int
    losses: Tensor
    learns: dict[str, bool]
    data_time: float
    images: list[str]


class DistillStep(SimpleTrainer):
    """SimpleTrainer with accumulation, autocast on any device, and a stop that explains itself.

    On a GPU losses are read when they are logged, so that they let no other step wait for it. Until
    then a gradient that is not finite is taken for 0 there, and the weights stay finite.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Any,
        optimizer: torch.optim.Optimizer,
        *,
        accumulate: int = 1,
        precision: torch.dtype | None = None,
        watched: tuple[str, ...] = (),
        output_dir: str = "",
        describe: Callable[[Any], list[str]] | None = None,
        saved: nn.Module | None = None,
        advice: str = ADVICE,
        max_iter: int | None = None,
        read_period: int | None = None,
    ):
        """
        Args:
            model, data_loader, optimizer: as SimpleTrainer's.
            accumulate: batches of the loader whose mean gradient makes one step.
            precision: of autocast; float16 scales the loss. None trains without autocast.
            watched: how the names of the distillation losses begin; idle ones are warned about.
            output_dir: where the state of a run that met a non-finite loss is written.
            describe: names the images of a batch; None is for Detectron2's lists of dicts.
            saved: the module whose state that is; None is the model.
            advice: what often helps then.
            max_iter: iterations of the run; None if it is not known.
            read_period: iterations after which losses are read; None is each on a CPU, and
                LOG_PERIOD elsewhere. They are also read after the last iteration.
        """
        super().__init__(model, data_loader, optimizer)
        self.accumulate = accumulate
        device = next(model.parameters()).device.type
        self.max_iter = max_iter
        self.read_period = read_period or (1 if device == "cpu" else LOG_PERIOD)
        self.taken: list[Taken] = []
        self.autocast = contextlib.nullcontext
        if precision is not None:
            self.autocast = lambda: torch.autocast(device, dtype=precision)
        self.grad_scaler = torch.amp.GradScaler(device, enabled=precision == torch.float16)
        self.watched = watched
        self.output_dir = output_dir
        self.describe = describe or _describe
        self.saved, self.advice = saved, advice
        self.idle = IdleLosses()

    def run_step(self) -> None:
        """One step.

        Raises:
            UserError: a loss that is read is not finite; the weights are as before this step.
        """
        data_time, images, parts = 0.0, [], []
        self.optimizer.zero_grad()
        for part in range(self.accumulate):
            start = time.perf_counter()
            data = next(self._data_loader_iter)
            data_time += time.perf_counter() - start
            images.extend(self.describe(data))
            with self._synchronisation(is_last=part == self.accumulate - 1):
                with self.autocast():
                    losses = self.model(data)
                total = sum(losses.values())
                self.grad_scaler.scale(total / self.accumulate).backward()
            parts.append(losses)
        self.after_backward()
        learns = {name: loss.requires_grad for name, loss in losses.items()}
        stacked = torch.stack([torch.stack([p[name].detach() for name in learns]) for p in parts])
        mean = stacked.mean(dim=0)
        self.taken.append(Taken(self.iter, mean, learns, data_time, images))
        if (self.iter + 1) % self.read_period == 0 or self.iter + 1 == self.max_iter:
            self._read_losses()
        elif not self.grad_scaler.is_enabled():  # which leaves such a step out itself
            self._drop_gradient_if_not_finite()
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if state_dict.get("grad_scaler"):  # empty where nothing was scaled
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])

    def _synchronisation(self, is_last: bool):
        """Processes add up their gradients once a step, with the last part."""
        if is_last or not isinstance(self.model, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.model.no_sync()

    def _read_losses(self) -> None:
        """Check and log the losses of all steps since the last time: one transfer for them all."""
        values = torch.cat([step.losses for step in self.taken]).cpu()
        for step, row in zip(
            self.taken, values.split([len(step.losses) for step in self.taken]), strict=True
        ):
            losses = dict(zip(step.learns, row, strict=True))
            self._stop_if_not_finite(step, losses)
            self._warn_if_idle(step, losses)
            self.write_metrics(losses, step.data_time, step.iteration)
        self.taken.clear()

    @torch.no_grad()
    def _drop_gradient_if_not_finite(self) -> None:
        """Without waiting for the device to know. All processes have the same gradients."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        is_bad = ~torch.stack([gradient.norm() for gradient in gradients]).isfinite().all()
        for gradient in gradients:
            gradient.masked_fill_(is_bad, 0)

    def _stop_if_not_finite(self, step: Taken, losses: dict[str, Tensor]) -> None:
        bad = [f"{n} is {v.item()}" for n, v in losses.items() if not torch.isfinite(v)]
        if not bad:
            return
        images = step.images
        # The other processes wait for this one to gather the metrics, and end with it.
        path = os.path.join(self.output_dir, f"non_finite_rank{comm.get_rank()}.pth")
        model = self.model if self.saved is None else self.saved
        if isinstance(model, DistributedDataParallel):
            model = model.module
        more = f" and {len(images) - MOST_IMAGES} more" if len(images) > MOST_IMAGES else ""
        with write_atomically(path, "wb") as f:
            torch.save(
                {"model": model.state_dict(), "iteration": step.iteration, "images": images}, f
            )
        later = self.iter - step.iteration
        when = f"{later} steps later, none of them with such a gradient" if later else "before it"
        raise UserError(
            f"At iteration {step.iteration} {', '.join(bad)}, with the images "
            f"{', '.join(images[:MOST_IMAGES])}{more}. The model {when} is saved in "
            f"{path}. {self.advice}"
        )

    def _warn_if_idle(self, step: Taken, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():
            if name.startswith(self.watched):
                self.idle.update(name, value, learns=step.learns[name])


def _describe(data: list[dict[str, Any]]) -> list[str]:
    return [f"{x.get('image_id', '?')} ({x.get('file_name', 'no file')})" for x in data]
