#!/usr/bin/env python
"""Train or evaluate a detector; the command line is Detectron2's.

tools/train_net.py --config-file configs/COCO-Detection/EA-DKD-R18-R101.yaml --num-gpus 4
tools/train_net.py --config-file ... --resume
tools/train_net.py --config-file ... --eval-only MODEL.WEIGHTS output/.../model_final.pth
tools/train_net.py --config-file ... --train-json A --train-images B --val-json C --val-images D
tools/train_net.py --config-file configs/COCO-Detection/lazy/ea_dkd_r18_r101.py train.max_iter=9000
torchrun --nproc-per-node 4 tools/train_net.py --config-file ...

Where OUTPUT_DIR holds a run, nothing starts without --resume, which goes on, or --overwrite, which
removes it. --eval-only goes through the stock architecture; with --resume it takes the run's newest
checkpoint. A .yaml config and a checkpoint run no code, whoever made them; a .py config is code.
"""

import logging
import os

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from detectron2.engine import default_argument_parser

from eakd_det.checkpoint.checkpointer import last_checkpoint
from eakd_det.config.defaults import detection_config
from eakd_det.config.lazy import load_lazy_config
from eakd_det.config.merge import load_config, merge_options
from eakd_det.data.boxes import MIN_SHARE
from eakd_det.data.coco_check import summarize
from eakd_det.data.custom import prepare_custom_data, use_custom_data
from eakd_det.data.registered import check_proposals
from eakd_det.engine.evaluation import evaluate, evaluate_teacher
from eakd_det.engine.hooks.weak_teacher import weak_teacher
from eakd_det.engine.launch import launch, set_up
from eakd_det.engine.lazy import run_lazy
from eakd_det.engine.trainer import DistillTrainer, best_metric
from eakd_det.evaluation.comparison import compare_results
from eakd_det.modeling.build import comparable_teacher_config
from eakd_det.utils import command_line
from eakd_det.utils.device import use_available_device
from eakd_det.utils.errors import UserError
from eakd_det.utils.output_dir import TRAINER_FILES


def parse_arguments():
    parser = default_argument_parser()
    parser.description = __doc__
    own = parser.add_argument_group("data in COCO format, checked before the first step")
    for split in ("train", "val"):
        own.add_argument(f"--{split}-json", metavar="FILE")
        own.add_argument(f"--{split}-images", metavar="FOLDER")
    own.add_argument(
        "--clip-boxes",
        action="store_true",
        help="cut boxes off at the edges of images, and leave out those of which less than "
        f"{MIN_SHARE:.0%}% is inside",
    )
    own.add_argument("--check", action="store_true", help="check the data and do nothing else")
    parser.add_argument(
        "--eval-teacher",
        action="store_true",
        help="evaluate the teacher beside the student, once, before the training",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="start anew, and remove the run in OUTPUT_DIR"
    )
    parser.add_argument(
        "--wandb", metavar="PROJECT", help="send TensorBoard's data to Weights & Biases, too"
    )
    return command_line.parse_arguments(parser, detection_config())


def own_data(args, cfg, *, again=False):
    """The data that the flags name, checked: by one process of a machine while others wait."""
    sources = {}
    for split in ("train", "val"):
        paths = getattr(args, f"{split}_json"), getattr(args, f"{split}_images")
        if all(paths):
            sources[split] = paths
        elif any(paths):
            raise UserError(f"--{split}-json and --{split}-images belong together.")
    if args.clip_boxes and not sources:
        raise UserError("--clip-boxes: name the data with --train-json and --train-images.")
    if sources and cfg.MODEL.KEYPOINT_ON:
        raise UserError(
            "MODEL.KEYPOINT_ON: how keypoints are called and mirrored is not read from COCO files; "
            "register the data in your own code with keypoint_names and keypoint_flip_map."
        )
    folder = os.path.join(cfg.OUTPUT_DIR, "annotations")
    machine = int(os.environ.get("GROUP_RANK", args.machine_rank))  # torchrun's, or our flag
    if machine:  # its disk may be the same
        folder = os.path.join(folder, f"machine{machine}")
    options = {"masks": cfg.MODEL.MASK_ON, "clip": args.clip_boxes, "again": again}
    return prepare_custom_data(folder, **sources, **options)


def look_first(args):
    """Check OUTPUT_DIR and the data before processes wait for each other, for half an hour."""
    if args.config_file.endswith(".py"):
        return
    cfg = load_config(args.config_file, args.opts)
    if not (args.eval_only or args.check):
        weights = cfg.MODEL.WEIGHTS, cfg.TEACHER.WEIGHTS
        options = {"resume": args.resume, "overwrite": args.overwrite, "inputs": weights}
        TRAINER_FILES.check(cfg.OUTPUT_DIR, **options)
    own_data(args, cfg, again=args.check)


def refuse_what_python_configs_lack(args):
    if args.check or args.eval_teacher or args.clip_boxes or args.train_json or args.val_json:
        raise UserError(
            "A Python config names its data itself: --train-json, --val-json, --check and "
            "--eval-teacher are for YAML configs."
        )


def device_of(args):
    if args.config_file.endswith(".py"):
        return load_lazy_config(args.config_file, args.opts).train.device
    return load_config(args.config_file, args.opts).MODEL.DEVICE


def evaluate_run(cfg, args, notes):
    start(cfg, args, notes)
    weights = last_checkpoint(cfg.OUTPUT_DIR) if args.resume else cfg.MODEL.WEIGHTS
    return evaluate(cfg, weights), None


def train(cfg, args, notes):
    with TRAINER_FILES.starting(cfg.OUTPUT_DIR, overwrite=args.overwrite):
        start(cfg, args, notes)
        trainer = DistillTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
    teacher = None
    if args.eval_teacher and not trainer.start_iter:  # a run that is resumed often does it once
        teacher = evaluate_teacher(cfg)
        trainer.register_hooks([weak_teacher(best_metric(cfg), teacher)])
    return trainer.train(), teacher


def start(cfg, args, notes):
    set_up(cfg, args, cfg.OUTPUT_DIR)
    for note in notes:
        logging.getLogger("eakd_det").warning(note)
    if args.eval_teacher:
        comparable_teacher_config(cfg)  # what is wrong with it shows before the training


def main(args):
    if args.config_file.endswith(".py"):
        refuse_what_python_configs_lack(args)
        run_lazy(args)
        return
    cfg = load_config(args.config_file, args.opts)
    data = own_data(args, cfg)
    if args.check:
        if not data:
            raise UserError("--check: name the data with --train-json and --train-images.")
        for custom in data.values():
            print(f"{custom.name}: {summarize(custom.data)}")
            for note in custom.notes:
                print(note)
        return
    notes = [note for custom in data.values() for note in custom.notes]
    if data:
        use_custom_data(cfg, data)
        data.clear()  # the annotations are read from the checked copies from here on
        merge_options(cfg, args.opts)  # what the command line says comes last
    check_proposals(cfg)
    use_available_device(cfg)
    cfg.freeze()
    results, teacher = (evaluate_run if args.eval_only else train)(cfg, args, notes)
    if args.eval_teacher:
        teacher = evaluate_teacher(cfg) if teacher is None else teacher
        compare_results({"teacher": teacher, "student": results})


if __name__ == "__main__":
    arguments = parse_arguments()
    launch(main, arguments, device_of, before=look_first)
