#!/usr/bin/env python
"""Distil a detector of tree crowns on aerial photographs: a worked example on real pictures.

It fetches the photographs (20 MB, from the wheel of deepforest 2.1.0 on PyPI, MIT licence), cuts
them into tiles, trains a ResNet-101 teacher, a ResNet-18 student alone and a distilled one from
scratch, draws their detections, analyses and reports them, and exports the student. Each step is a
command of this folder, which is printed. Ctrl-C stops the example, and the same command continues
it. docs/detection.md walks through it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, installed or not

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from eakd_det.utils import command_line


def parse_arguments():
    parser = command_line.make_parser(__doc__, opts="KEY VALUE pairs for the config of every run")
    parser.add_argument("--output-dir", default="output/trees", help="default: %(default)s")
    parser.add_argument(
        "--overwrite", action="store_true", help="remove the runs in the folder and start anew"
    )
    return command_line.parse_arguments(parser)


def main(args, tools=Path(__file__).parent):
    import logging
    import sys

    from eakd_det.demo.trees import run_example
    from eakd_det.sweep.processes import interrupt_on_signals

    interrupt_on_signals()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    logging.getLogger("eakd_det").setLevel(logging.INFO)
    table = run_example(tools, args.output_dir, args.opts, overwrite=args.overwrite)
    print(f"\n{table}\n")
    for name in ("report.html", "distilled/pictures", "distilled/analysis", "exported"):
        print(f"{args.output_dir}/{name}")


if __name__ == "__main__":
    stopped = "Stopped. The same command, without --overwrite, continues the example."
    command_line.run(main, parse_arguments(), stopped=stopped)
