"""Training that stops at losses, gradients or weights that are not finite."""

import math
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from eakd_det.checkpoint.finite import non_finite
from eakd_det.engine.train_step.zero_losses import PATIENCE, ZeroLosses
from eakd_det.utils.errors import UserError

from .models import check_causal
from .stopping import ResumableTrainer

ADVICE = (
    "A lower TRAINING.LEARNING_RATE, more TRAINING.WARMUP_STEPS, or BF16 in place of FP16 often "
    "helps."
)


class WatchedTrainer(ResumableTrainer):
    """ResumableTrainer that stops at the first loss, gradient or weight that is not finite.

    The losses and the gradient's norm are read once a step, before it is applied. This replaces
    `logging_nan_inf_filter`, which reads the loss of each micro-batch and hides one that is not
    finite.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.args.logging_nan_inf_filter = False
        self.add_callback(_EachStep(weakref.proxy(self)))
        self._zero_losses, self._losses, self._is_causality_checked = ZeroLosses(), [], False
        self._num_skipped = self._skipped_in_a_row = 0
        self._scale_before = 1.0

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Train on a micro-batch as Trainer does.

        Raises:
            UserError: a network attends to future tokens.
        """
        if not self._is_causality_checked:
            self._is_causality_checked = True
            tokens = inputs["input_ids"][0][inputs["attention_mask"][0].bool()]
            with self.accelerator.autocast():
                for key, network in self._networks(model).items():
                    check_causal(network, tokens.to(self.args.device), key)
        loss = super().training_step(model, inputs, *args, **kwargs)
        self._losses.append(loss)
        return loss

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Save the model as Trainer does.

        Raises:
            UserError: a weight is not finite; nothing is written.
        """
        bad = non_finite(self.model.named_parameters())
        if bad:
            raise UserError(
                f"After step {self.state.global_step} the weights of {bad[0]} are not finite: they "
                f"are not saved, and the models in {self.args.output_dir} are unchanged. {ADVICE}"
            )
        super().save_model(*args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log as Trainer does, with the number of skipped steps if there are any."""
        if self._num_skipped:
            logs = {**logs, "skipped_steps": self._num_skipped}
        super().log(logs, *args, **kwargs)

    def begin_step(self) -> None:
        """Clear the losses of the last step."""
        self._losses.clear()
        self._scale_before = self._loss_scale()

    def check_step(self) -> None:
        """Check the losses and the gradient of a step before it is applied.

        Raises:
            UserError: one of them is not finite.
        """
        losses = self._step_losses()
        figures = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
        figures |= self._gradient()
        bad = [f"{name} is {value}" for name, value in figures.items() if not math.isfinite(value)]
        if bad:
            raise UserError(
                f"At step {self.state.global_step + 1} {', '.join(bad)}: the step is not applied, "
                f"and the models in {self.args.output_dir} are unchanged. {ADVICE}"
            )
        self._watch({name: figures[name] for name in losses})

    def end_step(self) -> None:
        """Count the steps that float16's scaler has skipped.

        Raises:
            UserError: it has skipped PATIENCE consecutive steps, each at a lower scale.
        """
        # accelerate's own flag misses the steps that a fused optimizer leaves out by itself.
        is_skipped = self._loss_scale() < self._scale_before
        self._num_skipped += is_skipped
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if is_skipped else 0
        if self._skipped_in_a_row == PATIENCE:
            raise UserError(
                f"The gradients of the last {PATIENCE} steps were not finite in float16, and none "
                f"was applied. {ADVICE}"
            )

    def _loss_scale(self) -> float:
        """Return the scale of the loss in float16, which a skipped step lowers; 1 without one."""
        scaler = self.accelerator.scaler
        return 1.0 if scaler is None else scaler.get_scale()

    def _networks(self, model: nn.Module) -> dict[str, nn.Module]:
        """Return the networks that must be causal, by config node."""
        return {"MODEL": model}

    def _step_losses(self) -> dict[str, Tensor]:
        """Return the losses of the step, scalars by name."""
        return {"the loss": torch.stack(self._losses).sum()}

    def _watch(self, losses: dict[str, float]) -> None:
        """Warn of losses that stay 0."""
        for name, value in losses.items():
            self._zero_losses.update(name, value)

    def _gradient(self) -> dict[str, float]:
        """Return the gradient's norm; nothing in float16, whose scaler skips such a step itself."""
        if self.accelerator.scaler is not None:
            return {}
        # The norm of all shards, without clipping.
        norm = self.accelerator.clip_grad_norm_(self.model_wrapped.parameters(), math.inf)
        return {} if norm is None else {"the norm of the gradient": float(norm)}


class _EachStep(TrainerCallback):
    """Calls the checks of a WatchedTrainer."""

    def __init__(self, trainer: WatchedTrainer):
        self.trainer = trainer

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.trainer.begin_step()

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.trainer.check_step()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.trainer.end_step()
