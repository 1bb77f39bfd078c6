#!/usr/bin/env python
"""Detect objects on images: a picture of each with its boxes, and predictions.json.

tools/predict.py output/parts photo.jpg --output predictions
tools/predict.py output/parts photos 'more/**/*.png' --output predictions --score 0.3
tools/predict.py output/parts photos --output predictions --teacher runs/parts_r101

RUN is the OUTPUT_DIR of a run, the folder of a run of Detectron2 (config.yaml and model_final.pth)
or of an exported student. Its best weights are used, or else its final ones. An image is a file, a
folder of them or a quoted pattern. Images that cannot be read are listed at the end, with exit code
1; the others are predicted.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, installed or not

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from eakd_det.utils import command_line


def parse_arguments():
    parser = command_line.make_parser(__doc__)
    parser.add_argument("run", metavar="RUN", help="folder of a trained detector")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="file, folder or pattern")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="for the results")
    parser.add_argument(
        "--teacher", metavar="RUN", help="folder of a detector whose boxes are drawn beside"
    )
    parser.add_argument(
        "--score", type=float, default=0.5, help="least score of a detection; 0.5 by default"
    )
    parser.add_argument("--device", help="such as cpu; that of the run's config by default")
    return parser.parse_args()


def main(args):
    from eakd_det.evaluation.predictions import predict

    predict(args)


if __name__ == "__main__":
    command_line.run(main, parse_arguments())
