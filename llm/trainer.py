"""Distillation in transformers' Trainer."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from eakd_det.engine.train_step.loss_ratio import LossRatio, loss_names
from eakd_det.losses import LanguageHead, chunked_loss
from eakd_det.losses.divergence import IGNORED
from eakd_det.utils.errors import UserError

from .distillers import TokenObjective
from .head_states import capture, check_head
from .liger import FusedLoss
from .teacher import LanguageTeacher
from .watched import WatchedTrainer


class DistillationTrainer(WatchedTrainer):
    """WatchedTrainer whose loss compares the student's next-token logits with a teacher's.

    Arguments, callbacks, logging, launch and resume are Trainer's. The loss is the sum over tokens
    divided by `num_items_in_batch`, the tokens of the step in all micro-batches and processes.
    The teacher is held outside the student: no optimizer, checkpoint or wrapper contains it.
    """

    def __init__(
        self,
        *args: Any,
        teacher: PreTrainedModel,
        objective: TokenObjective,
        vocab_size: int,
        chunk_size: int = 0,
        compiled: bool = False,
        fused_loss: FusedLoss | None = None,
        **kwargs: Any,
    ):
        """
        Args:
            *args, **kwargs: Trainer's, without `compute_loss_func`.
            teacher: a model of the same vocabulary; frozen, and moved to the student's device.
            objective: the loss of each token.
            vocab_size: V, of the common vocabulary; wider logits (of a padded one) are cut.
            chunk_size: tokens whose logits are computed at a time in training; 0: all.
            compiled: compile the loss of a chunk; an argument of `chunked_loss`.
            fused_loss: computes the mean of `objective` in chunks in its place, in training.

        Raises:
            UserError: an argument is incompatible with distillation.
        """
        super().__init__(*args, compute_loss_func=self._loss, **kwargs)
        self._check_arguments(chunk_size)
        self.objective, self.vocab_size, self.chunk_size = objective, vocab_size, chunk_size
        self.compiled, self.fused_loss = compiled, fused_loss
        self.teacher = LanguageTeacher(teacher.to(self.args.device))
        self._teacher_output = self._states = None  # of the current batch
        self._has_checked_heads = False
        self._loss_ratio = LossRatio(loss_names(objective.distillation.methods))

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list, Tensor | int | None]:
        """Return Trainer's batches, and set the mean EA weight of a step if it is needed."""
        batches, num_tokens = super().get_batch_samples(*args, **kwargs)
        if self.objective.distillation.needs_mean and len(batches) > 1:
            self.objective.step_mean = self._mean_weight(batches)
        return batches, num_tokens

    def begin_step(self) -> None:
        super().begin_step()
        self.objective.sums.clear()

    def check_step(self) -> None:
        super().check_step()
        self.objective.step_mean = None  # an evaluation may follow

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Tensor | tuple[Tensor, ModelOutput]:
        """Compute Trainer's loss after the teacher's forward pass on the same inputs."""
        seen = {key: value for key, value in inputs.items() if key != "labels"}
        if not (self.chunk_size and model.training):
            with self.accelerator.autocast():
                self._teacher_output = self.teacher.outputs(seen)
            self._states = None
            return super().compute_loss(model, inputs, *args, **kwargs)
        student = self.accelerator.unwrap_model(model)
        heads = student.get_output_embeddings(), self.teacher.head
        with capture(heads[1]) as of_teacher, self.accelerator.autocast():
            self._teacher_output = self.teacher.outputs(seen)
        with capture(heads[0]) as of_student:
            self._states = list(zip((of_student, of_teacher), heads, strict=True))
            return super().compute_loss(model, inputs, *args, **kwargs)

    @torch.no_grad()
    def _mean_weight(self, batches: list[dict[str, Any]]) -> Tensor:
        """Return the mean EA weight over the tokens of a step, in all micro-batches and processes.

        The gradient of the first micro-batch needs it: both networks run once more, without
        gradients and with the dropout masks of the step.
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
        return {**super()._networks(model), "TEACHER": self.teacher.model}

    def _step_losses(self) -> dict[str, Tensor]:
        terms = {name: x for name, x in self.objective.sums.items() if name.startswith("loss_")}
        return {**super()._step_losses(), **terms}

    def _watch(self, losses: dict[str, float]) -> None:
        """Warn of losses that stay 0, and compare those of the methods with the cross-entropy.

        Liger-Kernel computes only their sum, which is watched then.
        """
        named = {name: value for name, value in losses.items() if name.startswith("loss_")}
        super()._watch(named or losses)
        if self.is_world_process_zero():
            step, number = self.state.global_step, self.state.max_steps
            self._loss_ratio.update(step, named, is_last=step + 1 == number)

    def _loss(
        self, outputs: ModelOutput, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Return the batch's share of the mean over the step's tokens; labels (B, L) unshifted."""
        teacher_outputs, self._teacher_output = self._teacher_output, None
        if self._states is None:
            labels = labels[:, 1:]  # position i predicts token i + 1
            logits = (o.logits[:, :-1, : self.vocab_size] for o in (outputs, teacher_outputs))
            places = (labels != IGNORED).nonzero(as_tuple=True)  # a GPU is waited for once
            per_token = self.objective(*(x[places] for x in logits), labels[places])
            number = len(per_token) if num_items_in_batch is None else num_items_in_batch
            return per_token.sum() / torch.as_tensor(number).clamp(min=1)
        # Autocast inside the wrapped network covers its forward pass alone.
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
        # Position i predicts token i + 1, the last one nothing; the states stay whole, as views.
        labels = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
        if self.fused_loss is not None:
            return self.fused_loss(*heads, labels, num_tokens)
        return chunked_loss(
            self.objective.per_token,
            *heads,
            labels,
            chunk_size=self.chunk_size,
            num_tokens=num_tokens,
            compiled=self.compiled,
            collect=self.objective.add,
        )

    def _cut(self, states: Tensor, head: nn.Linear) -> LanguageHead:
        bias = None if head.bias is None else head.bias[: self.vocab_size]
        return LanguageHead(states, head.weight[: self.vocab_size], bias)

    def _check_arguments(self, chunk_size: int) -> None:
        if self.args.n_gpu > 1:
            raise UserError(
                "One process has several GPUs: start one process per GPU (torchrun "
                "--nproc-per-node N, or accelerate launch), or set CUDA_VISIBLE_DEVICES to one."
            )
        if self.args.label_smoothing_factor:
            raise UserError("TRAINING.LABEL_SMOOTHING_FACTOR must be 0 with distillation.")
        is_sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if chunk_size and is_sharded:
            raise UserError(
                "FSDP and DeepSpeed shard the output head, so that its logits cannot be computed "
                "in chunks: set DISTILL.CHUNK_SIZE 0."
            )
