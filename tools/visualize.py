#!/usr/bin/env python
"""Draw ground truth, teacher and student side by side, a PNG for each image.

tools/visualize.py --config-file configs/Digits-Detection/EA-DKD-R18-R101.yaml
tools/visualize.py --config-file run/config.yaml --weights run/model_best.pth --dataset parts_val
tools/visualize.py --config-file run/config.yaml --val-json parts/val.json --val-images parts/images

The student is the newest checkpoint of the config's run, or --weights. For a run without a teacher,
the title is the name of its folder in place of "student". If the run was evaluated with --val-json,
the same data are used by default.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, installed or not

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from eakd_det.utils import command_line


def parse_arguments():
    parser = command_line.make_parser(
        __doc__, "--config-file", opts="KEY VALUE pairs of the config"
    )
    parser.add_argument("--weights", help="checkpoint of the student; the run's newest by default")
    parser.add_argument(
        "--dataset", help="registered dataset; the first of DATASETS.TEST by default"
    )
    command_line.add_data_flags(parser, "val")
    parser.add_argument(
        "--num-images",
        type=int,
        default=12,
        help="number of images, drawn at random; 12 by default",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random images")
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="lowest score that is drawn; 0.5 by default"
    )
    parser.add_argument("--output", help="folder; OUTPUT_DIR/pictures by default")
    return command_line.parse_arguments(parser)


def main(args):
    from eakd_det.evaluation.pictures import draw_run

    draw_run(args)


if __name__ == "__main__":
    command_line.run(main, parse_arguments())
