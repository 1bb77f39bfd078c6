"""Training and evaluation of a detector from a command line, as `tools/train_net.py` has it."""

import argparse
import logging
import os
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm

from eakd_det.checkpoint.checkpointer import last_checkpoint
from eakd_det.config.choices import choices_table
from eakd_det.config.lazy import load_lazy_config
from eakd_det.config.merge import load_config, merge_options
from eakd_det.data.custom import CustomData, prepare_custom_data, use_custom_data
from eakd_det.data.registered import check_datasets, check_proposals
from eakd_det.evaluation.comparison import compare_results
from eakd_det.modeling.build import comparable_teacher_config
from eakd_det.utils.command_line import data_sources
from eakd_det.utils.errors import UserError
from eakd_det.utils.output_dir import TRAINER_FILES, check_output_dir

from .data_report import report_data
from .evaluation import evaluate, evaluate_teacher
from .hooks.time_estimate import TimeEstimate
from .hooks.weak_teacher import weak_teacher
from .launch import set_up
from .lazy import run_lazy
from .process_group import TIMEOUT
from .restart import continued, record_launch
from .run_config import RunConfig, configure
from .trainer import DistillTrainer, best_metric

Results = dict[str, Any]

logger = logging.getLogger(__name__)


def main(args: argparse.Namespace) -> None:
    """Train or evaluate the detector of a config, or check its data, in each process of the run.

    Args:
        args: of Detectron2's argument parser with --overwrite and --wandb, the flags of
            `add_data_flags` for "train" and "val", --teacher, --student, --epochs, --check and
            --eval-teacher.

    Raises:
        UserError: the config, the data or OUTPUT_DIR does not fit.
    """
    if _is_python(args):
        _refuse_flags_of_yaml(args)
        run_lazy(args)
    elif args.check:
        _print_check(args)
    else:
        run_detector(args)


def run_detector(args: argparse.Namespace) -> tuple[CfgNode, Results | None]:
    """Train or evaluate the detector of a YAML config; return its config and results.

    The results are None for a training without an evaluation.

    Args:
        args: of `main`.

    Raises:
        UserError: as `main`.
    """
    run = configure(args)
    cfg = run.cfg
    if not args.eval_only:
        args = continued(args, cfg.OUTPUT_DIR)
        check_output_dir(cfg, args)
        comm.synchronize()  # before the first process writes
    _use_data(run, args, _check_data(args, cfg))
    if args.epochs and not args.eval_only:
        run.set_schedule(args)
    if not args.eval_only:
        run.keep_step(args)
    cfg = run.cfg
    check_proposals(cfg)
    cfg.freeze()
    results, teacher = (_evaluate if args.eval_only else _train)(run, args)
    if args.eval_teacher:
        teacher = evaluate_teacher(cfg) if teacher is None else teacher
        compare_results({"teacher": teacher, "student": results})
    return cfg, results


def check_first(args: argparse.Namespace) -> None:
    """Check OUTPUT_DIR, data and teacher in one process, before processes wait for each other.

    Raises:
        UserError: as `main`.
    """
    if _is_python(args):
        return
    run = configure(args)
    cfg = run.cfg
    if not (args.eval_only or args.check):
        check_output_dir(cfg, continued(args, cfg.OUTPUT_DIR))
    _use_data(run, args, _check_data(args, cfg, again=args.check))
    if not args.check:
        check_datasets(cfg, ("TEST",) if args.eval_only else ("TRAIN", "TEST"))


def device_of(args: argparse.Namespace) -> str:
    """Return the device that the YAML or Python config, or a KEY VALUE pair, names."""
    if _is_python(args):
        return load_lazy_config(args.config_file, args.opts).train.device
    return load_config(args.config_file, args.opts).MODEL.DEVICE


def timeout_of(args: argparse.Namespace) -> float:
    """Return DDP_TIMEOUT of the YAML config, or train.ddp_timeout of the Python config."""
    if _is_python(args):
        return load_lazy_config(args.config_file, args.opts).train.get("ddp_timeout", TIMEOUT)
    return load_config(args.config_file, args.opts).DDP_TIMEOUT


def _use_data(run: RunConfig, args: argparse.Namespace, data: dict[str, CustomData]) -> None:
    """Register the data that the flags name, and compare their classes with the teacher's."""
    run.notes += [note for custom in data.values() for note in custom.notes]
    if data:
        use_custom_data(run.cfg, data)
        data.clear()  # the annotations are read from the checked copies from here on
        merge_options(run.cfg, args.opts)  # the command line has the last word
    run.compare_classes()


def _is_python(args: argparse.Namespace) -> bool:
    return args.config_file.endswith(".py")


def _refuse_flags_of_yaml(args: argparse.Namespace) -> None:
    of_data = args.check or args.clip_boxes or args.train_json or args.val_json
    if of_data or args.eval_teacher or args.teacher or args.student or args.epochs:
        raise UserError(
            "A Python config names data, teacher, student and schedule itself: --train-json, "
            "--val-json, --check, --teacher, --student, --epochs and --eval-teacher are for YAML "
            "configs."
        )


def _check_data(
    args: argparse.Namespace, cfg: CfgNode, *, again: bool = False
) -> dict[str, CustomData]:
    """Check the data that the flags name; one process of a machine does so, the others wait."""
    sources = data_sources(args, "train", "val")
    if args.clip_boxes and not sources:
        raise UserError("--clip-boxes: name the data with --train-json and --train-images.")
    if sources and cfg.MODEL.KEYPOINT_ON:
        raise UserError(
            "MODEL.KEYPOINT_ON: names and mirrored pairs of keypoints are not read from COCO "
            "files; register the data in your own code with keypoint_names and keypoint_flip_map."
        )
    folder = os.path.join(cfg.OUTPUT_DIR, "annotations")
    machine = int(os.environ.get("GROUP_RANK", args.machine_rank))  # torchrun's, or our flag
    if machine:  # its disk may be the same
        folder = os.path.join(folder, f"machine{machine}")
    options = {"masks": cfg.MODEL.MASK_ON, "clip": args.clip_boxes, "again": again}
    return prepare_custom_data(folder, **sources, **options)


def _print_check(args: argparse.Namespace) -> None:
    """Print the report on the data and, with --epochs, the values that a training would have."""
    run = configure(args)
    data = _check_data(args, run.cfg)
    if not data:
        raise UserError("--check: name the data with --train-json and --train-images.")
    if not comm.is_main_process():
        return
    for i, paragraph in enumerate(report_data(run.cfg, data)):
        print("\n" * (i > 0) + paragraph, flush=True)
    if args.epochs:
        _use_data(run, args, data)
        run.set_schedule(args)
        print("\n" + choices_table(run.cfg, run.choices, args.opts))


def _evaluate(run: RunConfig, args: argparse.Namespace) -> tuple[Results, None]:
    _start(run, args)
    cfg = run.cfg
    weights = last_checkpoint(cfg.OUTPUT_DIR) if args.resume else cfg.MODEL.WEIGHTS
    return evaluate(cfg, weights), None


def _train(run: RunConfig, args: argparse.Namespace) -> tuple[Results | None, Results | None]:
    """Train the student; return its results and, where it was evaluated first, the teacher's."""
    cfg = run.cfg
    with TRAINER_FILES.starting(cfg.OUTPUT_DIR, overwrite=args.overwrite):
        _start(run, args)
        trainer = DistillTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
    record_launch(cfg.OUTPUT_DIR)
    if run.choices:
        logger.info(choices_table(cfg, run.choices, args.opts))
    teacher = None
    if args.eval_teacher and not trainer.start_iter:  # once, however often the run is resumed
        teacher = evaluate_teacher(cfg)
        trainer.register_hooks([weak_teacher(best_metric(cfg), teacher)])
    trainer.register_hooks([TimeEstimate(cfg.TEST.EVAL_PERIOD if cfg.DATASETS.TEST else 0)])
    results = trainer.train()
    logger.info(f"The student and its student.yaml are in {cfg.OUTPUT_DIR}.")
    return results, teacher


def _start(run: RunConfig, args: argparse.Namespace) -> None:
    set_up(run.cfg, args, run.cfg.OUTPUT_DIR)
    for note in run.notes:
        logger.warning(note)
    if args.eval_teacher:
        comparable_teacher_config(run.cfg)  # its errors show before the training
