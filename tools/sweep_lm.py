#!/usr/bin/env python
"""Train and evaluate language models of several configs over several seeds; a table at the end.

tools/sweep_lm.py --config-file configs/LLM/tiny/{Student,KD,EA-KD}.yaml --seeds 1 2 3

Started again it goes on: what has ended is not run again. Teachers are trained first.
"""

import argparse
import sys

from eakd_det.errors import UserError
from llm.evaluation import METRICS
from llm.log import show_progress
from llm.sweep import sweep
from llm.tables import table


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, nargs="+", metavar="FILE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE")
    return parser.parse_args()


def main(args):
    show_progress()
    rows = sweep(args.config_file, args.seeds, args.opts)
    for metric in METRICS:
        print(f"{metric}, percent\n\n{table(rows, metric)}\n")


if __name__ == "__main__":
    try:
        main(parse_arguments())
    except UserError as error:
        sys.exit(f"error: {error}")
