"""Logs of a run in TensorBoard and Weights & Biases, which go on in a resumed run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import Trainer, TrainingArguments
from transformers.integrations import TensorBoardCallback

from eakd_det.engine.weights_and_biases import start_or_continue

EVENTS = "runs"  # folder in OUTPUT_DIR


def keep_events_together(trainer: Trainer) -> None:
    """Let TensorBoard's events of all starts be in OUTPUT_DIR/runs, not in a folder of each start.

    TENSORBOARD_LOGGING_DIR names another folder.
    """
    callback = trainer.pop_callback(TensorBoardCallback)
    if callback is not None:
        callback.logging_dir = callback.logging_dir or str(Path(trainer.args.output_dir, EVENTS))
        trainer.add_callback(callback)


@contextmanager
def wandb_run(args: TrainingArguments) -> Iterator[None]:
    """Hold the run of Weights & Biases to which Trainer logs; see `start_or_continue`.

    None is started if TRAINING.REPORT_TO does not name wandb, or the caller has started one.
    """
    if "wandb" not in args.report_to or args.process_index:
        yield
        return
    import wandb

    if wandb.run is not None:
        yield
        return
    project = os.getenv("WANDB_PROJECT", "huggingface")  # as Trainer names it
    with start_or_continue(args.output_dir, project=project, name=args.run_name):
        yield
