#!/usr/bin/env python
"""Time training steps, plain and distilled, and their parts: variants in turn, medians, and JSON.

Images are made up and weights random, so nothing is needed but a config. The device is a GPU, or
the CPU where there is none. Other programs on the same cores change the figures.
"""

import json
import os

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from classification.benchmark import build_steps
from eakd_det.benchmark.parts import CONFIG, FIGURE, PARTS, run
from eakd_det.config.defaults import detection_config
from eakd_det.model_zoo import get_config_file
from eakd_det.utils import command_line
from eakd_det.utils.files import write_atomically


def parse_arguments():
    parser = command_line.make_parser(__doc__, opts="KEY VALUE pairs")
    parser.add_argument("--config-file", default=get_config_file(CONFIG), help="COCO's by default")
    parser.add_argument(
        "--size", nargs=3, type=int, metavar=("IMAGES", "HEIGHT", "WIDTH"), help="of its batch"
    )
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each variant")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*PARTS, "growth"],
        default=PARTS,
        help=f"growth draws {FIGURE}: how a step's time grows with images, ROIs and classes",
    )
    parser.add_argument("--output", default="output/benchmark", help="default: %(default)s")
    return command_line.parse_arguments(parser, detection_config())


def main(args):
    os.makedirs(args.output, exist_ok=True)
    results = run(args, build_steps)
    path = os.path.join(args.output, "results.json")
    with write_atomically(path) as f:
        json.dump(results, f, indent=1)
    print(f"Written to {path}")


if __name__ == "__main__":
    command_line.run(main, parse_arguments())
