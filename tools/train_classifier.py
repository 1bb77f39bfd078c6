#!/usr/bin/env python
"""Train or evaluate a classifier; the command line is Detectron2's.

tools/train_classifier.py --config-file configs/Digits/EA-KD.yaml
tools/train_classifier.py --config-file configs/CIFAR100/EA-KD/vgg13_vgg8.yaml --num-gpus 2
tools/train_classifier.py --config-file ... --resume
tools/train_classifier.py --config-file ... --overwrite
tools/train_classifier.py --config-file ... --eval-only MODEL.WEIGHTS output/.../model_final.pth

A teacher that TEACHER.CONFIG_FILE names and that has no weights yet is trained first; with --resume
that goes on where it was, too. --teacher-only ends there. Where OUTPUT_DIR holds a run, nothing
starts without --resume or --overwrite, which removes it.
"""

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from detectron2.engine import default_argument_parser
from detectron2.utils import comm

from classification.config import classification_config, load_config
from classification.engine import ClassifierTrainer
from classification.evaluation import evaluate_weights
from classification.teacher import needs_training
from eakd_det.checkpoint.checkpointer import last_checkpoint
from eakd_det.engine.launch import launch, set_up
from eakd_det.utils import command_line
from eakd_det.utils.device import use_available_device
from eakd_det.utils.lock import run_lock
from eakd_det.utils.output_dir import TRAINER_FILES


def parse_arguments():
    parser = default_argument_parser()
    parser.description = __doc__
    parser.add_argument(
        "--teacher-only", action="store_true", help="train the teacher, if need be, and stop"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="start anew, and remove the run in OUTPUT_DIR"
    )
    parser.add_argument(
        "--wandb", metavar="PROJECT", help="send TensorBoard's data to Weights & Biases, too"
    )
    return command_line.parse_arguments(parser, classification_config())


def check_folder(cfg, args):
    TRAINER_FILES.check(
        cfg.OUTPUT_DIR,
        resume=args.resume,
        overwrite=args.overwrite,
        inputs=(cfg.MODEL.WEIGHTS, cfg.TEACHER.WEIGHTS),
    )


def fit(cfg, args):
    cfg.freeze()
    with TRAINER_FILES.starting(cfg.OUTPUT_DIR, overwrite=args.overwrite):
        set_up(cfg, args, cfg.OUTPUT_DIR)
        trainer = ClassifierTrainer(cfg)
    return trainer.fit(resume=args.resume)


def device_of(args):
    return load_config(args.config_file, args.opts).MODEL.DEVICE


def fit_teacher(cfg, args):
    """Train the teacher of a run if it is missing; where another process does so, wait for it."""
    teacher = needs_training(cfg)
    comm.synchronize()  # before the first process may have trained it
    if teacher is None:
        return
    with run_lock(teacher.OUTPUT_DIR):
        is_missing = needs_training(cfg) is not None
        comm.synchronize()
        if is_missing:
            check_folder(teacher, args)
            comm.synchronize()  # before the first process writes
            fit(teacher, args)


def main(args):
    cfg = load_config(args.config_file, args.opts)
    use_available_device(cfg)
    if args.eval_only:
        set_up(cfg, args, cfg.OUTPUT_DIR)
        weights = last_checkpoint(cfg.OUTPUT_DIR) if args.resume else cfg.MODEL.WEIGHTS
        result = evaluate_weights(cfg, weights)
    else:
        if not args.teacher_only:
            check_folder(cfg, args)
        fit_teacher(cfg, args)
        result = {} if args.teacher_only else fit(cfg, args)
    if result:
        print(describe(result))


def describe(result):
    lines = [f"student: top-1 {result['top1']:.2f}, top-5 {result['top5']:.2f}"]
    if "best_top1" in result:
        lines.append(f"best top-1 of an epoch {result['best_top1']:.2f}")
    if result.get("teacher_top1") is not None:
        lines.append(f"teacher: top-1 {result['teacher_top1']:.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    launch(main, parse_arguments(), device_of)
