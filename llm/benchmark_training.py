"""Steps of DistillationTrainer with random models of GPT-2's sizes."""

import gc
import os
import statistics
import time
from typing import Any, NamedTuple

import torch
from transformers import GPT2Config, GPT2LMHeadModel, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from eakd_det.benchmark.bench import GPU_WARMUP, Bench
from eakd_det.benchmark.gpu import MIB, PROFILED, Recording
from eakd_det.benchmark.measure import Figures

from .config import language_config
from .distillers import TokenObjective
from .trainer import DistillationTrainer


class ModelSizes(NamedTuple):
    """Options of GPT2Config of student and teacher, examples of a step and their tokens."""

    student: dict[str, int]
    teacher: dict[str, int]
    batch_size: int
    length: int


GPU_SIZES = ModelSizes({}, {"n_embd": 1600, "n_layer": 48, "n_head": 25}, 8, 512)
_TINY = {"n_layer": 2, "n_head": 2, "vocab_size": 2000}
CPU_SIZES = ModelSizes({"n_embd": 32, **_TINY}, {"n_embd": 64, **_TINY}, 2, 64)
STEPS = 2  # for each round


def measure_training(bench: Bench, chunk_size: int, sizes: ModelSizes) -> dict[str, float]:
    """Measure EA-KD with whole logits and in chunks, under bfloat16 AMP on a GPU.

    Each training runs alone: transformers' Trainer cannot stop between two steps of another.

    Returns:
        Name -> seconds of a step.
    """
    torch.manual_seed(0)
    teacher = _model(sizes.teacher, bench).to(torch.bfloat16)
    variants = {"plain": {}, f"chunked_{chunk_size}": {"chunk_size": chunk_size}}
    if bench.on_gpu:
        variants[f"compiled_{chunk_size}"] = {"chunk_size": chunk_size, "compiled": True}
    rows = {name: _train(bench, sizes, teacher, options) for name, options in variants.items()}
    title = f"language models, {sizes.batch_size} x {sizes.length} tokens, one training step"
    bench.keep("language_model_training", rows, title=title, base="plain")
    return {name: figures["seconds"] for name, figures in rows.items()}


def _model(options: dict[str, int], bench: Bench) -> GPT2LMHeadModel:
    with bench.device:  # where a billion random numbers take no time
        return GPT2LMHeadModel(GPT2Config(**options))


def _train(
    bench: Bench, sizes: ModelSizes, teacher: GPT2LMHeadModel, options: dict[str, Any]
) -> Figures:
    """Train a new student for some steps and return the figures of one.

    Args:
        options: of DistillationTrainer.
    """
    if bench.on_gpu:  # the memory of an earlier training
        gc.collect()
        torch.cuda.empty_cache()
    torch.manual_seed(1)
    student, clock = _model(sizes.student, bench), _Clock(bench)
    vocabulary = student.config.vocab_size
    tokens = torch.randint(vocabulary, (sizes.batch_size * clock.max_steps, sizes.length))
    data = [{"input_ids": x, "labels": x, "attention_mask": torch.ones_like(x)} for x in tokens]
    node = language_config().DISTILL
    node.METHODS, node.EA.ENABLED = ("KD",), True
    trainer = DistillationTrainer(
        model=student,
        args=_arguments(bench, batch_size=sizes.batch_size, max_steps=clock.max_steps),
        train_dataset=data,
        teacher=teacher,
        objective=TokenObjective(node),
        vocab_size=vocabulary,
        callbacks=[clock],
        **options,
    )
    trainer.remove_callback(PrinterCallback)
    if bench.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    seconds = clock.figures["seconds"]
    return {**clock.figures, "tokens_per_second": sizes.batch_size * sizes.length / seconds}


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
