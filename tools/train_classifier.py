#!/usr/bin/env python
r"""Train or evaluate a classifier; the command line is Detectron2's.

tools/train_classifier.py --config-file configs/Digits/EA-KD.yaml
tools/train_classifier.py --config-file configs/CIFAR100/EA-KD/vgg13_vgg8.yaml --num-gpus 2
tools/train_classifier.py --config-file configs/Folder/EA-KD.yaml --pretrained --epochs 20 \
    --teacher timm:convnext_tiny --student timm:mobilenetv3_small_100 DATASET.ROOT my_images
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
    model = "resnet32x4, timm:NAME, torchvision:NAME or the folder of a run"
    parser.add_argument(
        "--teacher", metavar="MODEL", help=f"{model}; one without a run is trained first"
    )
    parser.add_argument("--student", metavar="MODEL", help=f"{model}, whose weights it starts from")
    parser.add_argument(
        "--epochs",
        type=command_line.positive,
        metavar="N",
        help="length of the training, and of a teacher's that is trained first",
    )
    parser.add_argument(
        "--pretrained",
        action="store_true",
        help="models of timm and torchvision start from their published weights (a download)",
    )
    return command_line.parse_arguments(parser)


def run(args):
    from classification.run import check_first, device_of, main, timeout_of
    from eakd_det.engine.launch import launch

    launch(main, args, device_of, timeout_of=timeout_of, before=check_first)


if __name__ == "__main__":
    run(parse_arguments())
