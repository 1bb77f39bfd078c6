#!/usr/bin/env python
"""Time training steps, plain and distilled, and their parts; print medians and write them as JSON.

Images are generated and weights are random, so that only a config is needed. The device is a GPU if
there is one, otherwise the CPU. Other programs on the same cores change the figures.
"""

import json
import os

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from classification.benchmark import build_steps
from eakd_det.benchmark.parts import CONFIG, FIGURE, PARTS, run
from eakd_det.model_zoo import get_config_file
from eakd_det.utils import command_line
from eakd_det.utils.files import write_atomically


def parse_arguments():
    parser = command_line.make_parser(__doc__, opts="KEY VALUE pairs")
    parser.add_argument(
        "--config-file",
        default=get_config_file(CONFIG),
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
        "--rounds", type=int, default=5, help="timed steps of each variant; 5 by default"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*PARTS, "growth"],
        default=PARTS,
        help=f"growth draws {FIGURE}: how a step's time grows with images, ROIs and classes",
    )
    parser.add_argument("--output", default="output/benchmark", help="default: %(default)s")
    return command_line.parse_arguments(parser)


def main(args):
    os.makedirs(args.output, exist_ok=True)
    results = run(args, build_steps)
    path = os.path.join(args.output, "results.json")
    with write_atomically(path) as f:
        json.dump(results, f, indent=1)
    print(f"Written to {path}")


if __name__ == "__main__":
    command_line.run(main, parse_arguments())
