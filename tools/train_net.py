#!/usr/bin/env python
r"""Train or evaluate a detector; the command line is Detectron2's.

tools/train_net.py --config-file configs/COCO-Detection/EA-DKD-R18-R101.yaml --num-gpus 4
tools/train_net.py --config-file ... --teacher FOLDER --epochs 24 --train-json A --train-images B \
    --val-json C --val-images D
tools/train_net.py --config-file ... --resume
tools/train_net.py --config-file ... --eval-only MODEL.WEIGHTS output/.../model_final.pth
tools/train_net.py --config-file configs/COCO-Detection/lazy/ea_dkd_r18_r101.py train.max_iter=9000
torchrun --nproc-per-node 4 tools/train_net.py --config-file ...

If OUTPUT_DIR already holds a run, either --resume (continue it) or --overwrite (remove it and start
anew) is required. --eval-only evaluates with the stock architecture; with --resume it evaluates the
newest checkpoint of the run. OUTPUT_DIR is the config's, for --train-json output/DATA/CONFIG. YAML
configs and checkpoints run no code; a Python config is code.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, installed or not

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from eakd_det.utils import command_line

CLIP = "clip boxes at the edges of images, and remove those that are almost outside"
EPOCHS = "schedule and evaluations for N passes over the training images, shown at the start"
STUDENT = "another backbone of the student: r18, r50, mv2, or timm:NAME for a model of timm"
PAIRS = "KEY VALUE pairs of the config; key=value for a Python config"


def parse_arguments():
    parser = command_line.make_parser(__doc__, opts=PAIRS, has_processes=True)
    add = parser.add_argument_group("teacher, student and schedule").add_argument
    add("--teacher", metavar="FOLDER", help="folder of the teacher's run, with config and weights")
    add("--student", metavar="NAME", help=STUDENT)
    add("--epochs", type=command_line.positive, metavar="N", help=EPOCHS)
    own = parser.add_argument_group("data in COCO format, checked before the first step")
    command_line.add_data_flags(own, "train", "val", clip=CLIP)
    own.add_argument(
        "--check",
        action="store_true",
        help="only check the data, report on them and draw some images",
    )
    parser.add_argument(
        "--eval-teacher",
        action="store_true",
        help="evaluate the teacher once, before the training",
    )
    return command_line.parse_arguments(parser)


def run(args):
    from eakd_det.engine.detection_run import check_first, device_of, main, timeout_of
    from eakd_det.engine.launch import launch

    launch(main, args, device_of, timeout_of=timeout_of, before=check_first)


if __name__ == "__main__":
    run(parse_arguments())
