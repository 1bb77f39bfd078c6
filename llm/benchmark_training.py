"""Steps of DistillationTrainer with random models of GPT-2's sizes."""

import os
import statistics
import time
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from eakd_det.benchmark.bench import GPU_WARMUP, Bench
from eakd_det.benchmark.gpu import MIB, PROFILED, Recording
from eakd_det.benchmark.measure import Figures

from .config import language_config
from .distillers import TokenObjective
from .trainer import DistillationTrainer

# Options of student and teacher, tokens of an example, and examples of a step.
GPU_SIZES = {}, {"n_embd": 1600, "n_layer": 48, "n_head": 25}, 512, 8
TINY = {"n_layer": 2, "n_head": 2, "vocab_size": 2000}
CPU_SIZES = {"n_embd": 32, **TINY}, {"n_embd": 64, **TINY}, 64, 2
STEPS = 2  # for each round


def measure_training(bench: Bench, chunk_size: int) -> dict[str, float]:
    """Measure EA-KD with whole logits and in chunks, under bfloat16 AMP on a GPU.

    Each training runs alone: transformers' Trainer cannot stop between two steps of another.

    Returns:
        Name -> seconds of a step.
    """
    student, teacher, length, batch_size = GPU_SIZES if bench.on_gpu else CPU_SIZES
    torch.manual_seed(0)
    teacher = _model(teacher, bench).to(torch.bfloat16)
    rows = {
        name: _train(bench, _model(student, bench), teacher, (batch_size, length), options)
        for name, options in {
            "plain": {},
            f"chunked_{chunk_size}": {"chunk_size": chunk_size},
        }.items()
    }
    title = f"language models, {batch_size} x {length} tokens, one training step"
    bench.keep("language_model_training", rows, title=title, base="plain")
    return {name: figures["seconds"] for name, figures in rows.items()}


def _model(options: dict[str, int], bench: Bench) -> GPT2LMHeadModel:
    with bench.device:  # where a billion random numbers take no time
        return GPT2LMHeadModel(GPT2Config(**options))


def _train(
    bench: Bench,
    student: GPT2LMHeadModel,
    teacher: GPT2LMHeadModel,
    shape: tuple[int, int],
    options: dict[str, Any],
) -> Figures:
    """Train for some steps and return the figures of a step.

    Args:
        shape: examples of a step and their tokens.
        options: of DistillationTrainer.
    """
    vocabulary, clock = student.config.vocab_size, _Clock(bench)
    tokens = torch.randint(vocabulary, (shape[0] * clock.max_steps, shape[1]))
    data = [{"input_ids": x, "labels": x, "attention_mask": torch.ones_like(x)} for x in tokens]
    node = language_config().DISTILL
    node.METHODS, node.EA.ENABLED = ("KD",), True
    trainer = DistillationTrainer(
        model=student,
        args=_arguments(bench, batch_size=shape[0], max_steps=clock.max_steps),
        train_dataset=data,
        teacher=teacher,
        objective=TokenObjective(node),
        vocab_size=vocabulary,
        callbacks=[clock],
        **options,
    )
    trainer.remove_callback(PrinterCallback)
    if bench.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    seconds = clock.figures["seconds"]
    return {**clock.figures, "tokens_per_second": shape[0] * shape[1] / seconds}


def _arguments(bench: Bench, *, batch_size: int, max_steps: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=os.path.join(bench.folder, "language_models"),
        per_device_train_batch_size=batch_size,
        max_steps=max_steps,
        bf16=bench.on_gpu,
        use_cpu=not bench.on_gpu,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        remove_unused_columns=False,
        disable_tqdm=True,
        dataloader_pin_memory=bench.on_gpu,
    )


class _Clock(TrainerCallback):
    """Measures the steps after the first GPU_WARMUP; on a GPU the last PROFILED are recorded.

    Attributes:
        max_steps: of the training.
        figures: columns of the table, at its end.
    """

    def __init__(self, bench: Bench):
        self.on_gpu, self.timed = bench.on_gpu, STEPS * bench.rounds
        self.max_steps = GPU_WARMUP + self.timed + (PROFILED if self.on_gpu else 0)
        self.figures: Figures = {}
        self._times: list[float] = []
        self._recording: Recording | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()
        step = state.global_step
        if GPU_WARMUP <= step <= GPU_WARMUP + self.timed:
            self._times.append(time.perf_counter())
        if step == GPU_WARMUP + self.timed:
            pairs = zip(self._times, self._times[1:], strict=False)
            self.figures["seconds"] = statistics.median(b - a for a, b in pairs)
            if self.on_gpu:
                self.figures |= {
                    "allocated_mib": torch.cuda.max_memory_allocated() / MIB,
                    "reserved_mib": torch.cuda.max_memory_reserved() / MIB,
                }
                self._recording = Recording()
        elif self._recording is not None and step == self.max_steps:
            self.figures |= self._recording.stop(PROFILED)
