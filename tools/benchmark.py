#!/usr/bin/env python
"""Measure training steps, plain and distilled, and their parts; print medians, write them as JSON.

Images are generated and weights are random, so that only a config is needed. The device is a GPU if
there is one, otherwise the CPU. Other programs on the same cores change the figures.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, installed or not

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from eakd_det.utils import command_line

DETECTION = ["detection", "digits", "losses", "pooling"]
CLASSIFICATION, LANGUAGE_MODELS = "classification", "language_models"
DEFAULT, OPTIONAL = [*DETECTION, CLASSIFICATION, LANGUAGE_MODELS], ["growth", "scaling"]


def parse_arguments():
    parser = command_line.make_parser(__doc__, opts="KEY VALUE pairs")
    parser.add_argument(
        "--config-file",
        default="",
        metavar="FILE",
        help="an EA-DKD config for COCO by default",
    )
    parser.add_argument(
        "--size",
        nargs=3,
        type=int,
        metavar=("IMAGES", "HEIGHT", "WIDTH"),
        help="size of the batch of --config-file",
    )
    parser.add_argument(
        "--rounds",
        type=command_line.positive,
        default=5,
        help="timed rounds of each variant; 5 by default",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*DEFAULT, *OPTIONAL],
        default=DEFAULT,
        help="growth draws how a step's time grows with images, ROIs and classes; scaling measures "
        "what a training on several machines adds, and makes a model of it",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="also print the calls that take most of the host's time in a detector's step",
    )
    parser.add_argument("--output", default="output/benchmark", help="default: %(default)s")
    return command_line.parse_arguments(parser)


def main(args):
    from eakd_det.benchmark.detection import CONFIG
    from eakd_det.benchmark.parts import PARTS, run
    from eakd_det.model_zoo import get_config_file
    from eakd_det.utils.files import write_atomically

    os.makedirs(args.output, exist_ok=True)
    args.config_file = args.config_file or get_config_file(CONFIG)
    parts = dict(PARTS)
    if CLASSIFICATION in args.only:
        from classification.benchmark import run_classification

        parts[CLASSIFICATION] = run_classification
    if LANGUAGE_MODELS in args.only:
        from llm.benchmark import run_language_models  # needs transformers, which others do not

        parts[LANGUAGE_MODELS] = run_language_models
    results = run(args, parts, print)
    path = os.path.join(args.output, "results.json")
    with write_atomically(path) as f:
        json.dump(results, f, indent=1)
    print(f"Written to {path}")


if __name__ == "__main__":
    command_line.run(main, parse_arguments())
