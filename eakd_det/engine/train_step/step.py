"""One optimizer step: gradient accumulation, mixed precision, and losses that are watched."""

import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from eakd_det.distillers.entropy_statistics import LOG_PERIOD
from eakd_det.engine.train_step.loss_ratio import MOST, LossRatio
from eakd_det.engine.train_step.skipped_steps import LeftOut, is_finite
from eakd_det.engine.train_step.snapshot import Snapshot, optimized, with_gradient
from eakd_det.engine.train_step.zero_losses import IdleLosses
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_atomically

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
        data_time: seconds that its data took.
        images: names of its images.
        losses: (number of losses,) mean of each over the parts.
        learns: name of each loss -> whether it has a gradient.
        is_left_out: scalar, whether a loss or the gradient is not finite.
    """

    iteration: int
    data_time: float = 0.0
    images: list[str] = field(default_factory=list)
    losses: Tensor | None = None
    learns: dict[str, bool] = field(default_factory=dict)
    is_left_out: Tensor | None = None


class DistillStep(SimpleTrainer):
    """SimpleTrainer with accumulation, autocast on any device, and a stop that explains itself.

    A step with a loss or a gradient that is not finite is left out, on any device: the weights and
    the optimizer stay as before it, and where it is a loss, the running statistics do, too.

    On a GPU losses are read when they are logged, so that no other step waits for them.
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
        most_times_task: float = MOST,
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
            most_times_task: as `LossRatio` takes it; those that are larger are warned about.
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
        self._device = next(model.parameters()).device
        device = self._device.type
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
        self.idle, self.ratio = IdleLosses(), LossRatio(watched, most_times_task)
        is_scaled = self.grad_scaler.is_enabled()
        self.left_out = LeftOut(advice, is_scaled=is_scaled, max_iter=max_iter)

    def run_step(self) -> None:
        """One step.

        Raises:
            UserError: a loss that is read is not finite; the weights are as before this step.
        """
        self.optimizer.zero_grad()
        step, before = Taken(self.iter), Snapshot(self._buffers())
        try:
            self._compute(step)
        except FloatingPointError as error:  # of a detector's RPN, which looks at its boxes itself
            before.restore(self._buffers(), torch.ones((), dtype=torch.bool, device=self._device))
            self._stop_if_not_finite(self._values())  # a cause that has not been read
            self._stop(step, [f'the model says "{error}"'])
        self.after_backward()
        is_bad = ~step.losses.isfinite().all()
        before.restore(self._buffers(), is_bad)
        self.grad_scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in with_gradient(self.optimizer)]
        step.is_left_out = is_bad | ~is_finite(gradients) if gradients else is_bad
        self.taken.append(step)
        is_read = (self.iter + 1) % self.read_period == 0 or self.iter + 1 == self.max_iter
        if is_read:
            self._read_losses()
        self._apply(step.is_left_out, is_read or self.grad_scaler.is_enabled())

    def _compute(self, step: Taken) -> None:
        """Losses and gradients of a step's parts."""
        parts = []
        for part in range(self.accumulate):
            start = time.perf_counter()
            data = next(self._data_loader_iter)
            step.data_time += time.perf_counter() - start
            step.images.extend(self.describe(data))
            with self._synchronisation(is_last=part == self.accumulate - 1):
                with self.autocast():
                    losses = self.model(data)
                total = sum(losses.values())
                self.grad_scaler.scale(total / self.accumulate).backward()
            parts.append(losses)
        step.learns = {name: loss.requires_grad for name, loss in losses.items()}
        names = step.learns
        stacked = torch.stack([torch.stack([p[name].detach() for name in names]) for p in parts])
        step.losses = stacked.mean(dim=0)

    def _apply(self, is_left_out: Tensor, may_wait: bool) -> None:
        """Step, or not; where the device may not be waited for, step and undo it there."""
        if not may_wait:
            before = Snapshot(optimized(self.optimizer))
            self.optimizer.step()
            before.restore(optimized(self.optimizer), is_left_out)
        elif not is_left_out:
            self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _buffers(self) -> dict[str, Tensor]:
        """Running statistics, among others."""
        return {n: x for n, x in self.model.named_buffers() if x.device == self._device}

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "grad_scaler": self.grad_scaler.state_dict(),
            "left_out_steps": self.left_out.number,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if state_dict.get("grad_scaler"):  # empty where nothing was scaled
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
        self.left_out.number = state_dict.get("left_out_steps", 0)  # older checkpoints do not count

    def _synchronisation(self, is_last: bool):
        """Processes add up their gradients once a step, with the last part."""
        if is_last or not isinstance(self.model, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.model.no_sync()

    def _read_losses(self) -> None:
        """Check and log the losses of all steps since the last time."""
        values = self._values()
        self._stop_if_not_finite(values)
        for step, losses, is_left_out in values:
            self._warn_if_idle(step, losses)
            self.ratio.update(step.iteration, losses)
            self.left_out.count(step.iteration, is_left_out)
            self.write_metrics(losses, step.data_time, step.iteration)
        self.taken.clear()

    def _values(self) -> list[tuple[Taken, dict[str, Tensor], bool]]:
        """Losses of the steps since the last time, and whether each is left out: one transfer."""
        if not self.taken:
            return []
        rows = [torch.cat([step.losses, step.is_left_out[None]]) for step in self.taken]
        values = torch.cat(rows).cpu().split([len(row) for row in rows])
        return [
            (step, dict(zip(step.learns, losses, strict=True)), bool(is_left_out))
            for step, (*losses, is_left_out) in zip(self.taken, values, strict=True)
        ]

    def _stop_if_not_finite(self, values: list[tuple[Taken, dict[str, Tensor], bool]]) -> None:
        for step, losses, _ in values:
            bad = [f"{n} is {v.item()}" for n, v in losses.items() if not torch.isfinite(v)]
            if bad:
                self._stop(step, bad)

    def _stop(self, step: Taken, bad: list[str]) -> NoReturn:
        """Save the model, and say what of a step is not finite."""
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
        when = f"{later} steps later, which this one did not change," if later else "before it"
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
