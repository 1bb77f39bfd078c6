"""One optimizer step: gradient accumulation, mixed precision, and losses that are watched."""

import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .checkpoint import write_atomically
from .errors import UserError

PATIENCE = 20  # iterations that a distillation loss may be idle before it is warned about


MOST_IMAGES = 16  # that a message names
ADVICE = "A lower SOLVER.BASE_LR, more SOLVER.WARMUP_ITERS or SOLVER.CLIP_GRADIENTS often helps."

PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def precision(name: str) -> torch.dtype:
    """The dtype of autocast that SOLVER.AMP.DTYPE names.

    Raises:
        UserError: there is no such.
    """
    if name not in PRECISIONS:
        choices = ", ".join(PRECISIONS)
        raise UserError(f"SOLVER.AMP.DTYPE: {name!r} is unknown; choose from {choices}.")
    return PRECISIONS[name]


def log_step(images: int, parts: int, learning_rate: float, max_iter: int) -> None:
    """Say what a step of the run takes: `images` over all processes, in `parts` one by one."""
    processes = comm.get_world_size()
    logging.getLogger(__name__).info(
        f"A step takes {images} images: {processes} process(es) with {parts} part(s) of "
        f"{images // (processes * parts)}; base learning rate {learning_rate}, "
        f"{max_iter} iterations"
    )


class DistillStep(SimpleTrainer):
    """SimpleTrainer with accumulation, autocast on any device, and a stop that explains itself."""

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
        """
        super().__init__(model, data_loader, optimizer)
        self.accumulate = accumulate
        device = next(model.parameters()).device.type
        self.autocast = contextlib.nullcontext
        if precision is not None:
            self.autocast = lambda: torch.autocast(device, dtype=precision)
        self.grad_scaler = torch.amp.GradScaler(device, enabled=precision == torch.float16)
        self.watched = watched
        self.output_dir = output_dir
        self.describe = describe or _describe
        self.saved, self.advice = saved, advice
        self.idle = Counter()

    def run_step(self) -> None:
        """One step.

        Raises:
            UserError: a loss is not finite; the weights are as before the step.
        """
        data_time, batches, parts = 0.0, [], []
        self.optimizer.zero_grad()
        for part in range(self.accumulate):
            start = time.perf_counter()
            data = next(self._data_loader_iter)
            data_time += time.perf_counter() - start
            batches.append(data)
            with self._synchronisation(is_last=part == self.accumulate - 1):
                with self.autocast():
                    losses = self.model(data)
                total = sum(losses.values())
                self.grad_scaler.scale(total / self.accumulate).backward()
            parts.append(losses)
        self.after_backward()
        values = self._transfer(parts)
        self._stop_if_not_finite(values, batches)
        self._warn_if_idle(values, parts[-1])
        self._write_metrics(values, data_time)
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

    def _transfer(self, parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Name -> mean over the parts, on the CPU: one transfer for all losses of the step."""
        names = parts[0].keys()
        stacked = torch.stack([torch.stack([p[n].detach() for n in names]) for p in parts])
        return dict(zip(names, stacked.mean(dim=0).cpu(), strict=True))

    def _stop_if_not_finite(self, values: dict[str, Tensor], batches: list[Any]) -> None:
        bad = [f"{n} is {v.item()}" for n, v in values.items() if not torch.isfinite(v)]
        if not bad:
            return
        images = [name for data in batches for name in self.describe(data)]
        # The other processes wait for this one to gather the metrics, and end with it.
        path = os.path.join(self.output_dir, f"non_finite_rank{comm.get_rank()}.pth")
        model = self.model if self.saved is None else self.saved
        if isinstance(model, DistributedDataParallel):
            model = model.module
        more = f" and {len(images) - MOST_IMAGES} more" if len(images) > MOST_IMAGES else ""
        with write_atomically(path, "wb") as f:
            torch.save({"model": model.state_dict(), "iteration": self.iter, "images": images}, f)
        raise UserError(
            f"At iteration {self.iter} {', '.join(bad)}, with the images "
            f"{', '.join(images[:MOST_IMAGES])}{more}. The model before this step is saved in "
            f"{path}. {self.advice}"
        )

    def _warn_if_idle(self, values: dict[str, Tensor], losses: dict[str, Tensor]) -> None:
        for name in values:
            if not name.startswith(self.watched):
                continue
            is_idle = values[name] == 0 or not losses[name].requires_grad
            self.idle[name] = self.idle[name] + 1 if is_idle else 0
            if self.idle[name] == PATIENCE:
                cause = "0" if values[name] == 0 else "without a gradient"
                logging.getLogger(__name__).warning(
                    f"{name} has been {cause} for {PATIENCE} iterations: the student learns "
                    "nothing from it. Are its WEIGHT and options 0, or is the teacher's output "
                    "saturated?"
                )


def _describe(data: list[dict[str, Any]]) -> list[str]:
    return [f"{x.get('image_id', '?')} ({x.get('file_name', 'no file')})" for x in data]
