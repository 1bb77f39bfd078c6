#!/usr/bin/env python
"""Write an HTML page about runs: figures, learning curves, entropies, pictures and commands.

tools/report.py output/Digits/KD output/Digits/EA-KD
tools/report.py output/demo --output demo.html
tools/report.py "a long run=output/COCO-Detection/EA-DKD-R18-R101"

A RUN is [LABEL=]FOLDER: the OUTPUT_DIR of a detector, a classifier or a language model, a folder
that contains such folders, or the output folder of tools/sweep.py. The page is self-contained.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, installed or not

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from eakd_det.utils import command_line


def parse_arguments():
    parser = command_line.make_parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="[LABEL=]FOLDER")
    parser.add_argument(
        "--output",
        default="",
        metavar="FILE",
        help="report.html in the folder that the runs have in common by default",
    )
    return parser.parse_args()


def main(args):
    from classification.runs import Classifiers
    from eakd_det.report.page import write_report
    from eakd_det.sweep.detectors import Detectors
    from llm.runs import LanguageModels

    kinds = (LanguageModels(), Classifiers(), Detectors())
    path = write_report(args.runs, kinds, args.output)
    print(f"{path} ({os.path.getsize(path) / 1e6:.1f} MB)")


if __name__ == "__main__":
    command_line.run(main, parse_arguments())
