"""Training and evaluation of a detector from a command line, as `tools/train_net.py` has it."""

import argparse
import logging
import os
from typing import Any

from detectron2.config import CfgNode

from eakd_det.checkpoint.checkpointer import last_checkpoint
from eakd_det.config.lazy import load_lazy_config
from eakd_det.config.merge import load_config, merge_options
from eakd_det.data.coco_check import summarize
from eakd_det.data.custom import CustomData, prepare_custom_data, use_custom_data
from eakd_det.data.registered import check_proposals
from eakd_det.evaluation.comparison import compare_results
from eakd_det.modeling.build import comparable_teacher_config
from eakd_det.utils.command_line import data_sources
from eakd_det.utils.errors import UserError
from eakd_det.utils.output_dir import TRAINER_FILES

from .evaluation import evaluate, evaluate_teacher
from .hooks.weak_teacher import weak_teacher
from .launch import set_up
from .lazy import run_lazy
from .trainer import DistillTrainer, best_metric

Results = dict[str, Any]


def main(args: argparse.Namespace) -> None:
    """Train or evaluate the detector of a config, in each process of the run.

    Args:
        args: of Detectron2's argument parser with --overwrite and --wandb, the flags of
            `add_data_flags` for "train" and "val", --check and --eval-teacher.

    Raises:
        UserError: the config, the data or OUTPUT_DIR does not fit.
    """
    if _is_python(args):
        _refuse_flags_of_yaml(args)
        run_lazy(args)
        return
    cfg = load_config(args.config_file, args.opts)
    data = _check_data(args, cfg)
    if args.check:
        _print_check(data)
        return
    notes = [note for custom in data.values() for note in custom.notes]
    if data:
        use_custom_data(cfg, data)
        data.clear()  # the annotations are read from the checked copies from here on
        merge_options(cfg, args.opts)  # the command line has the last word
    check_proposals(cfg)
    cfg.freeze()
    results, teacher = (_evaluate if args.eval_only else _train)(cfg, args, notes)
    if args.eval_teacher:
        teacher = evaluate_teacher(cfg) if teacher is None else teacher
        compare_results({"teacher": teacher, "student": results})


def check_first(args: argparse.Namespace) -> None:
    """Check OUTPUT_DIR and the data in one process, before processes wait for each other.

    Raises:
        UserError: as `main`.
    """
    if _is_python(args):
        return
    cfg = load_config(args.config_file, args.opts)
    if not (args.eval_only or args.check):
        weights = cfg.MODEL.WEIGHTS, cfg.TEACHER.WEIGHTS
        options = {"resume": args.resume, "overwrite": args.overwrite, "inputs": weights}
        TRAINER_FILES.check(cfg.OUTPUT_DIR, **options)
    _check_data(args, cfg, again=args.check)


def device_of(args: argparse.Namespace) -> str:
    """Return the device that the YAML or Python config, or a KEY VALUE pair, names."""
    if _is_python(args):
        return load_lazy_config(args.config_file, args.opts).train.device
    return load_config(args.config_file, args.opts).MODEL.DEVICE


def _is_python(args: argparse.Namespace) -> bool:
    return args.config_file.endswith(".py")


def _refuse_flags_of_yaml(args: argparse.Namespace) -> None:
    if args.check or args.eval_teacher or args.clip_boxes or args.train_json or args.val_json:
        raise UserError(
            "A Python config names its data itself: --train-json, --val-json, --check and "
            "--eval-teacher are for YAML configs."
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


def _print_check(data: dict[str, CustomData]) -> None:
    if not data:
        raise UserError("--check: name the data with --train-json and --train-images.")
    for custom in data.values():
        print(f"{custom.name}: {summarize(custom.data)}")
        for note in custom.notes:
            print(note)


def _evaluate(cfg: CfgNode, args: argparse.Namespace, notes: list[str]) -> tuple[Results, None]:
    _start(cfg, args, notes)
    weights = last_checkpoint(cfg.OUTPUT_DIR) if args.resume else cfg.MODEL.WEIGHTS
    return evaluate(cfg, weights), None


def _train(
    cfg: CfgNode, args: argparse.Namespace, notes: list[str]
) -> tuple[Results | None, Results | None]:
    """Train the student; return its results and, where it was evaluated first, the teacher's."""
    with TRAINER_FILES.starting(cfg.OUTPUT_DIR, overwrite=args.overwrite):
        _start(cfg, args, notes)
        trainer = DistillTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
    teacher = None
    if args.eval_teacher and not trainer.start_iter:  # once, however often the run is resumed
        teacher = evaluate_teacher(cfg)
        trainer.register_hooks([weak_teacher(best_metric(cfg), teacher)])
    return trainer.train(), teacher


def _start(cfg: CfgNode, args: argparse.Namespace, notes: list[str]) -> None:
    set_up(cfg, args, cfg.OUTPUT_DIR)
    for note in notes:
        logging.getLogger("eakd_det").warning(note)
    if args.eval_teacher:
        comparable_teacher_config(cfg)  # its errors show before the training
