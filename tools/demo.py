#!/usr/bin/env python
"""Distil a ResNet-101 Faster R-CNN into a ResNet-18 one on handwritten digits, in minutes.

No data and no GPU are needed. Ctrl-C stops the demo, and the same command continues it. It prints a
table and writes output/demo/results.json and output/demo/detections.png. If the folder has runs of
another config, --overwrite is required, which removes them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, installed or not

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from eakd_det.utils import command_line


def parse_arguments():
    parser = command_line.make_parser(__doc__, opts="KEY VALUE pairs for every config")
    parser.add_argument("--output-dir", default="output/demo", help="default: %(default)s")
    parser.add_argument(
        "--seeds",
        type=command_line.positive,
        default=1,
        help="runs of each student, which differ in their seeds",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="remove the runs in the folder and start anew"
    )
    parser.restarts = True
    return command_line.parse_arguments(parser)


def main(args):
    from eakd_det.demo.demo import format_results, run_demo, set_up_logging

    set_up_logging(args.output_dir)
    options = {"seeds": args.seeds, "overwrite": args.overwrite}
    results = run_demo(args.output_dir, args.opts, **options)
    print(f"\n{format_results(results)}\n")
    print(f"Figures: {args.output_dir}/results.json   Pictures: {args.output_dir}/detections.png")


if __name__ == "__main__":
    stopped = "Stopped. The same command continues the demo."
    command_line.run(main, parse_arguments(), stopped=stopped)
