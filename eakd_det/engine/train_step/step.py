"""One optimizer step: micro-batches, mixed precision, and checks of the losses."""

import contextlib
import logging
import math
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import torch
from detectron2.engine import SimpleTrainer, TrainerBase
from detectron2.engine.defaults import create_ddp_model
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from eakd_det.checkpoint.checkpointer import SafeCheckpointer
from eakd_det.distillers.entropy_statistics import LOG_PERIOD
from eakd_det.modeling.meta_arch.distilled import Distilled

from .fused import fuse, keep_implementation, step_unless
from .look_ahead import LookAhead, reads_in_workers
from .loss_ratio import MAX_RATIO, LossRatio, loss_names, name_of_method
from .pending import PendingStep, read_steps, stop_at, write_steps
from .skipped_steps import SkippedSteps, is_finite
from .snapshot import Snapshot, optimized, running_buffers, with_gradient
from .zero_losses import ZeroLosses

ADVICE = "A lower SOLVER.BASE_LR, more SOLVER.WARMUP_ITERS or SOLVER.CLIP_GRADIENTS often helps."


def log_step_size(images: int, micro_batches: int, learning_rate: float, max_iter: int) -> None:
    """Log how a step's images are divided among processes and micro-batches.

    Args:
        images: of a step, over all processes.
        micro_batches: of each process.
    """
    processes = comm.get_world_size()
    logging.getLogger(__name__).info(
        f"Images per step: {images} = {processes} (processes) x {micro_batches} (micro-batches) x "
        f"{images // (processes * micro_batches)}; base learning rate: {learning_rate}; "
        f"iterations: {max_iter}"
    )


class DistillStep(SimpleTrainer):
    """SimpleTrainer with micro-batches, autocast and DDP on any device, and checks of the losses.

    A step with a loss or a gradient that is not finite is left out, on any device: the weights and
    the optimizer stay as before it, and, if a loss is not finite, the running statistics too.

    On a GPU the losses are read when they are logged, so that other steps do not synchronise.

    Attributes:
        looks_ahead: the argument `look_ahead`, read when the first batch is due.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Any,
        optimizer: torch.optim.Optimizer,
        *,
        accumulate: int = 1,
        precision: torch.dtype | None = None,
        methods: Iterable[str] = (),
        max_ratio: float = MAX_RATIO,
        output_dir: str = "",
        describe: Callable[[Any], list[str]] | None = None,
        student: nn.Module | None = None,
        advice: str = ADVICE,
        max_iter: int | None = None,
        read_period: int | None = None,
        look_ahead: bool | None = None,
        ddp: dict[str, Any] | None = None,
        fused: bool | None = None,
    ):
        """
        Args:
            model: returns a dict of losses; with several processes it is wrapped in DDP here.
            data_loader, optimizer: those of SimpleTrainer.
            accumulate: micro-batches, each a batch of the loader, whose mean gradient makes a step.
            precision: of autocast; float16 scales the loss. None trains without autocast.
            methods: names of the distillation methods, whose losses are checked.
            max_ratio: as in `LossRatio`; methods with larger losses are warned about.
            output_dir: folder of the run.
            describe: names the images of a batch; None is for Detectron2's lists of dicts.
            student: the module that is saved; None is the model.
            advice: a remedy for losses that are not finite, for the messages.
            max_iter: iterations of the run; None if it is not known.
            read_period: iterations after which losses are read; None is each on a CPU, and
                LOG_PERIOD elsewhere. They are also read after the last iteration.
            look_ahead: copy batches to the device and, during a step, read the next one and start
                the teacher on it; see `LookAhead`. None does so on a GPU, and reads ahead there if
                the loader has worker processes.
            ddp: options of DDP that differ from those here.
            fused: use the fused kernels of the optimizer, if it has some; None is on a GPU alone.
        """
        self.student = model if student is None else student
        self._device = next(model.parameters()).device
        options = {"broadcast_buffers": False, **(ddp or {})}
        options["device_ids"] = [comm.get_local_rank()] if self._device.type == "cuda" else None
        super().__init__(create_ddp_model(model, **options), data_loader, optimizer)
        self._distilled = model if isinstance(model, Distilled) else None
        self.looks_ahead = look_ahead
        self.accumulate = accumulate
        device = self._device.type
        self._is_fused = (device == "cuda" if fused is None else fused) and fuse(optimizer)
        keep_implementation(optimizer)
        self._buffers = running_buffers(model, self._device)
        self.max_iter = max_iter
        self.read_period = read_period or (1 if device == "cpu" else LOG_PERIOD)
        self.pending: list[PendingStep] = []
        self.autocast = contextlib.nullcontext
        if precision is not None:
            self.autocast = lambda: torch.autocast(device, dtype=precision)
        self.grad_scaler = torch.amp.GradScaler(device, enabled=precision == torch.float16)
        self.distillation_losses = loss_names(methods)
        self.output_dir = output_dir
        self.describe = describe or _describe
        self.advice = advice
        self.zero_losses, self.ratio = ZeroLosses(), LossRatio(self.distillation_losses, max_ratio)
        is_scaled = self.grad_scaler.is_enabled()
        self.skipped_steps = SkippedSteps(advice, is_scaled=is_scaled, max_iter=max_iter)

    def build_checkpointer(
        self, trainer: TrainerBase, *, class_names: Sequence[str] = (), **modules: nn.Module
    ) -> SafeCheckpointer:
        """Build the checkpointer of the run, which saves the student into the run's folder.

        Args:
            trainer: whose state is saved: this step, or the trainer around it.
            class_names: of the data.
            modules: modules that train beside the student, by their keys in checkpoints.
        """
        return SafeCheckpointer(
            self.student,
            self.output_dir,
            class_names=class_names,
            trainer=weakref.proxy(trainer),
            **modules,
        )

    @property
    def _data_loader_iter(self) -> LookAhead:
        if self._data_loader_iter_obj is None:
            self._data_loader_iter_obj = self._iterate()
        return self._data_loader_iter_obj

    def _iterate(self) -> LookAhead:
        """Return an iterator over the training data, made when the first batch is due."""
        is_on, is_forced = self.looks_ahead, self.looks_ahead is not None
        if not is_forced:
            is_on = self._device.type == "cuda"
        return LookAhead(
            self.data_loader,
            self._device if is_on else None,
            is_ahead=is_on and (is_forced or reads_in_workers(self.data_loader)),
            start=self._start_teacher if self._distilled else None,
            num_batches=self.max_iter and (self.max_iter - self.iter) * self.accumulate,
        )

    def _start_teacher(self, batched_inputs: list[dict[str, Any]]) -> None:
        """Start the teacher on the next batch, in the precision of its forward pass."""
        with self.autocast():
            self._distilled.look_ahead(batched_inputs)

    def run_step(self) -> None:
        """Run one step.

        Raises:
            UserError: a loss that is read is not finite; the weights are as before this step.
        """
        self.optimizer.zero_grad()
        step, before = PendingStep(self.iter), Snapshot(self._running())
        try:
            self._compute(step)
        except FloatingPointError as error:  # of a detector's RPN, which checks its boxes itself
            before.restore(self._running(), torch.ones((), dtype=torch.bool, device=self._device))
            self._check_losses()  # an earlier step may be the cause
            self._stop(step, [f'the model says "{error}"'])
        self.after_backward()
        is_good = (step.losses.abs() < math.inf).all()
        before.restore(self._running(), ~is_good)
        self.grad_scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in with_gradient(self.optimizer)]
        step.is_skipped = ~(is_good & is_finite(gradients) if gradients else is_good)
        self.pending.append(step)
        is_read = (self.iter + 1) % self.read_period == 0 or self.iter + 1 == self.max_iter
        if is_read:
            self._read_losses()
        self._apply(step.is_skipped, is_read)

    def _compute(self, step: PendingStep) -> None:
        """Compute the losses and gradients of a step's micro-batches."""
        micro_batches = []
        for number in range(self.accumulate):
            data = next(self._data_loader_iter)
            step.data_time += self._data_loader_iter.seconds
            step.images.extend(self.describe(data))
            with self._synchronisation(is_last=number == self.accumulate - 1):
                losses = self._backward(data)
            micro_batches.append(losses)
        step.has_gradient = {name: loss.requires_grad for name, loss in losses.items()}
        names = step.has_gradient
        rows = [torch.stack([m[name].detach() for name in names]) for m in micro_batches]
        step.losses = torch.stack(rows).mean(dim=0)

    def _apply(self, is_skipped: Tensor, is_read: bool) -> None:
        """Take the optimizer's step unless it is skipped.

        That synchronises if the losses are read anyway, or float16 is not fused.
        """
        if self._is_fused:
            step_unless(self.optimizer, is_skipped)
        elif not (is_read or self.grad_scaler.is_enabled()):
            before = Snapshot(optimized(self.optimizer))
            self.optimizer.step()
            before.restore(optimized(self.optimizer), is_skipped)
        elif not is_skipped:
            self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _running(self) -> dict[int, Tensor]:
        """Return the present running statistics; a hook may have replaced them."""
        return {i: module.get_buffer(name) for i, (module, name) in enumerate(self._buffers)}

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "grad_scaler": self.grad_scaler.state_dict(),
            "left_out_steps": self.skipped_steps.number,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if state_dict.get("grad_scaler"):  # empty where nothing was scaled
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
        # Older checkpoints have no count.
        self.skipped_steps.number = state_dict.get("left_out_steps", 0)

    def _synchronisation(self, is_last: bool):
        """Let processes sum their gradients once a step, with the last micro-batch."""
        if is_last or not isinstance(self.model, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.model.no_sync()

    def _backward(self, data: Any) -> dict[str, Tensor]:
        """Compute the losses of a micro-batch, and add their gradients to those of the weights."""
        with self.autocast():
            losses = self.model(data)
        self.grad_scaler.scale(sum(losses.values()) / self.accumulate).backward()
        return losses

    def _read_losses(self) -> None:
        """Read, check and log the losses of the pending steps."""
        self._check_losses()
        for step in self.pending:
            for name, value in step.values.items():
                if name_of_method(name, self.distillation_losses):
                    self.zero_losses.update(name, value, has_gradient=step.has_gradient[name])
            is_last = step.iteration + 1 == self.max_iter
            self.ratio.update(step.iteration, step.values, is_last=is_last)
            self.skipped_steps.update(step.iteration, step.was_skipped)
        write_steps(self.pending)
        self.pending.clear()

    def _check_losses(self) -> None:
        """Read the losses of the pending steps, and stop at the first that is not finite."""
        read_steps(self.pending)
        for step in self.pending:
            if faults := step.non_finite():
                self._stop(step, faults)

    def _stop(self, step: PendingStep, faults: list[str]) -> NoReturn:
        stop_at(
            step,
            faults,
            iteration=self.iter,
            model=self.student,
            output_dir=self.output_dir,
            advice=self.advice,
        )


def _describe(data: list[dict[str, Any]]) -> list[str]:
    return [f"{x.get('image_id', '?')} ({x.get('file_name', 'no file')})" for x in data]
