"""Distillation inside transformers' Trainer."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from eakd_det.losses import LanguageHead, chunked_loss
from eakd_det.losses.divergence import IGNORED
from eakd_det.utils.errors import UserError

from .distillers import TokenObjective
from .head_states import capture, check_head
from .liger import FusedLoss
from .watched import WatchedTrainer


class DistillationTrainer(WatchedTrainer):
    """WatchedTrainer whose loss compares the student's next words with a teacher's.

    Arguments, callbacks, logging, launch and resume are Trainer's. The loss is the sum over tokens
    divided by `num_items_in_batch`, the tokens of the step over its micro-batches and processes.
    The teacher is held outside the student: no optimizer, checkpoint or wrapper sees it.
    """

    def __init__(
        self,
        *args: Any,
        teacher: PreTrainedModel,
        objective: TokenObjective,
        num_words: int,
        chunk_size: int = 0,
        fused_loss: FusedLoss | None = None,
        **kwargs: Any,
    ):
        """
        Args:
            *args, **kwargs: Trainer's, without `compute_loss_func`.
            teacher: of the same words; frozen here, and moved to the student's device.
            objective: the loss of each token.
            num_words: V, the words that both have; wider logits (a padded vocabulary) are cut.
            chunk_size: tokens whose logits are there at a time in training; 0 is all.
            fused_loss: computes the mean of `objective` in chunks in its place, in training.

        Raises:
            UserError: an argument does not go with distillation.
        """
        super().__init__(*args, compute_loss_func=self._loss, **kwargs)
        self._refuse_what_does_not_fit(chunk_size)
        self.objective, self.num_words, self.chunk_size = objective, num_words, chunk_size
        self.fused_loss = fused_loss
        self.teacher = teacher.to(self.args.device).eval().requires_grad_(False)
        self._teacher_output = self._states = None  # of the batch that is being computed
        self._has_checked_heads = False

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list, Tensor | int | None]:
        """Trainer's; where the tokens of the step share an EA weight, that of all micro-batches."""
        batches, num_tokens = super().get_batch_samples(*args, **kwargs)
        if self.objective.is_matched and len(batches) > 1:
            self.objective.step_weight = self._mean_weight(batches)
        return batches, num_tokens

    def begin_step(self) -> None:
        super().begin_step()
        self.objective.sums.clear()

    def check_step(self) -> None:
        super().check_step()
        self.objective.step_weight = None  # an evaluation may follow

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Tensor | tuple[Tensor, ModelOutput]:
        """Trainer's, after the teacher's pass over the same inputs."""
        seen = {key: value for key, value in inputs.items() if key != "labels"}
        if not (self.chunk_size and model.training):
            with torch.no_grad(), self.accelerator.autocast():
                self._teacher_output = self.teacher(**seen)
            self._states = None
            return super().compute_loss(model, inputs, *args, **kwargs)
        student = self.accelerator.unwrap_model(model)
        heads = student.get_output_embeddings(), self.teacher.get_output_embeddings()
        with capture(heads[1]) as of_teacher, torch.no_grad(), self.accelerator.autocast():
            self._teacher_output = self.teacher(**seen)
        with capture(heads[0]) as of_student:
            self._states = list(zip((of_student, of_teacher), heads, strict=True))
            return super().compute_loss(model, inputs, *args, **kwargs)

    @torch.no_grad()
    def _mean_weight(self, batches: list[dict[str, Any]]) -> Tensor:
        """Mean EA weight over the tokens of a step's micro-batches, of all processes.

        The first micro-batch's gradient needs it: both networks run once more, without gradients
        and with the dropout that the step will have.
        """
        device, sums = self.args.device, self.objective.sums
        devices = [] if device.type == "cpu" else [device]
        self.model_wrapped.train()
        sums.clear()
        with torch.random.fork_rng(devices, device_type=device.type):
            for batch in batches:
                self.compute_loss(self.model_wrapped, self._prepare_inputs(batch))
        pair = torch.stack([sums["weight"], sums["tokens"]])
        weight, number = self.accelerator.reduce(pair, "sum")
        return weight / number.clamp(min=1)

    def _networks(self, model: nn.Module) -> dict[str, nn.Module]:
        return {**super()._networks(model), "TEACHER": self.teacher}

    def _step_losses(self) -> dict[str, Tensor]:
        terms = {name: x for name, x in self.objective.sums.items() if name.startswith("loss_")}
        return {**super()._step_losses(), **terms}

    def _watched(self, losses: dict[str, Tensor]) -> list[str]:
        """Each method's, where Liger-Kernel does not compute them together."""
        return [name for name in losses if name.startswith("loss_")] or super()._watched(losses)

    def _loss(
        self, outputs: ModelOutput, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """The batch's part of the mean over the step's tokens; labels are (B, L), not shifted."""
        labels = labels[:, 1:]  # position i says word i + 1
        teacher_outputs, self._teacher_output = self._teacher_output, None
        if self._states is None:
            logits = (o.logits[:, :-1, : self.num_words] for o in (outputs, teacher_outputs))
            counts = labels != IGNORED
            per_token = self.objective(*(x[counts] for x in logits), labels[counts])
            number = len(per_token) if num_items_in_batch is None else num_items_in_batch
            return per_token.sum() / torch.as_tensor(number).clamp(min=1)
        # The wrapped network's own pass is in mixed precision; what follows it must ask for that.
        with self.accelerator.autocast():
            return self._chunked(outputs, teacher_outputs, labels, num_items_in_batch)

    def _chunked(
        self,
        outputs: ModelOutput,
        teacher_outputs: ModelOutput,
        labels: Tensor,
        num_tokens: Tensor | int | None,
    ) -> Tensor:
        states, self._states = self._states, None
        if not self._has_checked_heads:
            for name, (captured, head), output in zip(
                ("student", "teacher"), states, (outputs, teacher_outputs), strict=True
            ):
                check_head(head, captured.states, output.logits, name)
            self._has_checked_heads = True
        heads = [self._cut(captured.states, head) for captured, head in states]
        if self.fused_loss is not None:
            return self.fused_loss(*heads, labels, num_tokens)
        return chunked_loss(
            self.objective, *heads, labels, chunk_size=self.chunk_size, num_tokens=num_tokens
        )

    def _cut(self, states: Tensor, head: nn.Linear) -> LanguageHead:
        bias = None if head.bias is None else head.bias[: self.num_words]
        return LanguageHead(states[:, :-1], head.weight[: self.num_words], bias)

    def _refuse_what_does_not_fit(self, chunk_size: int) -> None:
        if self.args.n_gpu > 1:
            raise UserError(
                "One process sees several GPUs: start one for each (torchrun --nproc-per-node N, "
                "or accelerate launch), or show it one with CUDA_VISIBLE_DEVICES."
            )
        if self.args.label_smoothing_factor:
            raise UserError("TRAINING.LABEL_SMOOTHING_FACTOR does not go with distillation: set 0.")
        is_sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if chunk_size and is_sharded:
            raise UserError(
                "FSDP and DeepSpeed keep the output head in shards, so that its logits cannot be "
                "made in chunks: set DISTILL.CHUNK_SIZE 0."
            )
