"""Assembly of a trainer's hooks: one for YAML configs, Python configs and classifiers."""

from collections.abc import Iterable
from typing import Any

from detectron2.engine import HookBase, default_writers
from detectron2.engine.hooks import (
    BestCheckpointer,
    EvalHook,
    IterationTimer,
    LRScheduler,
    PeriodicCheckpointer,
    PeriodicWriter,
    PreciseBN,
)
from detectron2.utils import comm

from eakd_det.checkpoint.checkpointer import SafeCheckpointer, StudentWriter
from eakd_det.engine.train_step.step import DistillStep

from .average_buffers import AverageBuffers
from .best_checkpoint import BestCheckpoint
from .optimizer_settings import OptimizerSettings
from .periodic_checkpoint import PeriodicCheckpoint
from .preemption import Preemption
from .random_states import RandomStates
from .stopwatch import Stopwatch
from .student_record import StudentRecord
from .weak_teacher import WeakTeacher
from .writers import show_statistics

# The order in which a trainer calls its hooks, with the reasons for it.
ORDER = (
    StudentRecord,
    OptimizerSettings,  # LRScheduler starts from the settings
    IterationTimer,
    Stopwatch,
    LRScheduler,  # a checkpoint holds the learning rate of the next step
    (PreciseBN, AverageBuffers),  # these statistics are saved and evaluated
    RandomStates,  # gathers the states that the checkpoint holds
    PeriodicCheckpointer,  # saves before an evaluation, which may fail
    Preemption,  # saves what all hooks above have changed, and leaves out the evaluation
    EvalHook,
    BestCheckpointer,  # compares the metrics of the evaluation
    PeriodicWriter,  # writes them
    WeakTeacher,  # compares the evaluation with the teacher's
)


def complete_hooks(
    stock: Iterable[HookBase | None],
    step: DistillStep,
    checkpointer: SafeCheckpointer,
    states: RandomStates,
    *,
    scheduler: Any = None,
    eval_period: int,
    best_metric: str,
) -> list[HookBase]:
    """Add the hooks of this package to those of Detectron2's DefaultTrainer.

    Args:
        stock: Detectron2's hooks, or `stock_hooks`; those of other kinds keep their places.
        step: of the run; no checkpoint has been loaded into its optimizer.
        checkpointer: of the run.
        states: saves the state of each process.
        scheduler: of the learning rate; None if the hook LRScheduler makes it.
        eval_period: iterations between two evaluations.
        best_metric: metric of model_best.pth; empty for none.
    """
    hooks = [
        *stock,
        StudentRecord(checkpointer),
        OptimizerSettings(step.optimizer, scheduler),
        states,
        Preemption(states, checkpointer),
    ]
    if best_metric and comm.is_main_process():
        names = checkpointer.class_names
        writer = StudentWriter(step.student, step.output_dir, class_names=names)
        hooks.append(BestCheckpoint(eval_period, writer, best_metric))
    return in_order(hooks)


def stock_hooks(
    step: DistillStep,
    checkpointer: SafeCheckpointer,
    test: EvalHook,
    *,
    scheduler: Any,
    saving: dict[str, Any],
    log_period: int,
) -> list[HookBase]:
    """Build the hooks of Detectron2's DefaultTrainer for a trainer that is no subclass of it.

    Args:
        step, checkpointer: of the run.
        test: evaluates the student.
        scheduler: of the learning rate, or Detectron2's multiplier for it.
        saving: options of PeriodicCheckpoint: the period, and others of Detectron2's.
        log_period: iterations between two lines of the log.
    """
    hooks = [IterationTimer(), LRScheduler(scheduler=scheduler), test]
    if comm.is_main_process():
        writers = show_statistics(default_writers(step.output_dir, step.max_iter), step.max_iter)
        hooks += [
            PeriodicCheckpoint(checkpointer, **saving),
            PeriodicWriter(writers, period=log_period),
        ]
    return hooks


def in_order(hooks: Iterable[HookBase | None]) -> list[HookBase]:
    """Sort hooks by ORDER; a hook of another kind stays behind the one that precedes it."""
    ranked, rank = [], 0
    for hook in filter(None, hooks):
        rank = next((i for i, kinds in enumerate(ORDER) if isinstance(hook, kinds)), rank)
        ranked.append((rank, hook))
    return [hook for _, hook in sorted(ranked, key=lambda pair: pair[0])]
