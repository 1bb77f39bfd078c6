#!/usr/bin/env python
"""Train or evaluate a classifier; the command line is Detectron2's.

tools/train_classifier.py --config-file configs/Digits/EA-KD.yaml
tools/train_classifier.py --config-file configs/CIFAR100/EA-KD/vgg13_vgg8.yaml --num-gpus 2
tools/train_classifier.py --config-file ... --resume
tools/train_classifier.py --config-file ... --overwrite
tools/train_classifier.py --config-file ... --eval-only MODEL.WEIGHTS output/.../model_final.pth

If the teacher of TEACHER.CONFIG_FILE has no weights yet, it is trained first, or continued with
--resume. --teacher-only trains only the teacher. If OUTPUT_DIR already holds a run, either --resume
(continue it) or --overwrite (remove it and start anew) is required.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, installed or not

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from eakd_det.utils import command_line


def parse_arguments():
    parser = command_line.make_parser(
        __doc__, opts="KEY VALUE pairs of the config", has_processes=True
    )
    parser.add_argument(
        "--teacher-only", action="store_true", help="train the teacher, if need be, and stop"
    )
    return command_line.parse_arguments(parser)


def run(args):
    from classification.run import device_of, main
    from eakd_det.engine.launch import launch

    launch(main, args, device_of)


if __name__ == "__main__":
    run(parse_arguments())
