"""Training and evaluation of a classifier from a command line, as `tools/train_classifier.py`."""

import argparse
import logging
import os
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.utils import comm

from eakd_det.checkpoint.checkpointer import last_checkpoint
from eakd_det.engine.launch import set_up
from eakd_det.engine.restart import changed_start, continued, describe_changes, record_launch
from eakd_det.utils.lock import run_lock
from eakd_det.utils.output_dir import TRAINER_FILES, check_output_dir

from .config import load_config
from .data import read_images
from .engine import ClassifierTrainer
from .evaluation import evaluate_weights
from .flags import apply_flags
from .models import check_classifier
from .own_images import is_own
from .teacher_run import needs_training

logger = logging.getLogger(__name__)


def main(args: argparse.Namespace) -> None:
    """Train or evaluate the classifier of a config, in each process of the run.

    Args:
        args: of Detectron2's argument parser with --overwrite, --wandb and --teacher-only; the
            other flags of the tool have become KEY VALUE pairs (`apply_flags`).

    Raises:
        UserError: the config, a model or OUTPUT_DIR does not fit.
    """
    cfg = load_config(args.config_file, args.opts)
    if args.eval_only:
        set_up(cfg, args, cfg.OUTPUT_DIR)
        weights = last_checkpoint(cfg.OUTPUT_DIR) if args.resume else cfg.MODEL.WEIGHTS
        result = evaluate_weights(cfg, weights)
    else:
        own = continued(args, cfg.OUTPUT_DIR)
        if not args.teacher_only:
            check_output_dir(cfg, own)
            _check_models(cfg)
            _print_plan(cfg)
        fit_teacher(cfg, args)
        result = {} if args.teacher_only else _fit(cfg, own, options=args.opts)
    if result:
        print(_describe(result))


def device_of(args: argparse.Namespace) -> str:
    """Return the device that the config or a KEY VALUE pair names."""
    return load_config(args.config_file, args.opts).MODEL.DEVICE


def timeout_of(args: argparse.Namespace) -> float:
    """Return DDP_TIMEOUT of the config or of a KEY VALUE pair."""
    return load_config(args.config_file, args.opts).DDP_TIMEOUT


def check_first(args: argparse.Namespace) -> None:
    """Apply the flags, and check image files before several processes wait for each other.

    Raises:
        UserError: the flags, or images, do not fit.
    """
    apply_flags(args)
    if int(os.environ.get("WORLD_SIZE", args.num_gpus * args.num_machines)) > 1:
        data = load_config(args.config_file, args.opts).DATASET
        if not args.eval_only:
            read_images(data, is_train=True, size=data.TRAIN_SIZE)
        read_images(data, is_train=False)


def fit_teacher(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Train the teacher of a run if it is missing; where another process does so, wait for it."""
    teacher = needs_training(cfg)
    comm.synchronize()  # before the first process may have trained it
    if teacher is None:
        return
    with run_lock(teacher.OUTPUT_DIR):
        is_missing = needs_training(cfg) is not None
        comm.synchronize()
        if is_missing:
            args = continued(args, teacher.OUTPUT_DIR)
            check_output_dir(teacher, args)
            _print_plan(teacher, "The teacher, trained first")
            _fit(teacher, args, options=())


def _print_plan(cfg: CfgNode, title: str = "The run") -> None:
    """Print model, length and folder of a run on own images, whose folder may be a default."""
    if not (is_own(cfg.DATASET.NAME) and comm.is_main_process()):
        return
    solver, weights = cfg.SOLVER, "from scratch"
    if cfg.MODEL.WEIGHTS:
        weights = f"from {cfg.MODEL.WEIGHTS}"
    steps = f", learning rate times {solver.GAMMA:g} after {', '.join(map(str, solver.STEPS))}"
    epochs = f"{solver.EPOCHS} epochs{steps if solver.STEPS else ''}"
    print(f"{title}: {cfg.MODEL.NAME} {weights}; {epochs}; in {cfg.OUTPUT_DIR}", flush=True)


def _check_models(cfg: CfgNode) -> None:
    """Check the names of the models, before data are read and a missing teacher is trained."""
    for node in (cfg.MODEL, cfg.TEACHER) if cfg.DISTILL.METHODS else (cfg.MODEL,):
        if node.NAME:  # else the models are built, which raises
            check_classifier(node.NAME)


def _fit(cfg: CfgNode, args: argparse.Namespace, *, options: Sequence[str]) -> dict[str, float]:
    """Train a model to its end.

    Args:
        cfg: of the student or of its teacher.
        args: with the flags `resume` and `overwrite` for the folder of `cfg`.
        options: KEY VALUE pairs of the command line that are meant for `cfg`.
    """
    comm.synchronize()  # all have checked the folder, before the first process writes
    note = "" if "SOLVER.ACCUMULATE" in options[::2] else _keep_step(cfg, args)
    cfg.freeze()
    with TRAINER_FILES.starting(cfg.OUTPUT_DIR, overwrite=args.overwrite):
        set_up(cfg, args, cfg.OUTPUT_DIR)
        if note:
            logger.warning(note)
        trainer = ClassifierTrainer(cfg)
    record_launch(cfg.OUTPUT_DIR)
    return trainer.fit(resume=args.resume)


def _keep_step(cfg: CfgNode, args: argparse.Namespace) -> str:
    """Keep the size of micro-batches in a resumed run that has another number of processes.

    The images of a step, which need not divide evenly, stay. Returned is a sentence about it, or
    nothing.
    """
    first = changed_start(cfg.OUTPUT_DIR, resume=args.resume)
    if first is None:
        return ""
    before = cfg.SOLVER.ACCUMULATE
    micro_batches = first["processes"] * first.get("accumulate", before)
    cfg.SOLVER.ACCUMULATE = -(-micro_batches // comm.get_world_size())
    return describe_changes(first, {"SOLVER.ACCUMULATE": (before, cfg.SOLVER.ACCUMULATE)})


def _describe(result: dict[str, float]) -> str:
    lines = [f"student: top-1 {result['top1']:.2f}, top-5 {result['top5']:.2f}"]
    if "best_top1" in result:
        lines.append(f"best top-1 of an epoch {result['best_top1']:.2f}")
    if result.get("teacher_top1") is not None:
        lines.append(f"teacher: top-1 {result['teacher_top1']:.2f}")
    return "\n".join(lines)
