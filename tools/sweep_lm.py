#!/usr/bin/env python
"""Train and evaluate language models of several configs over several seeds; tables at the end.

tools/sweep_lm.py --configs configs/LLM/tiny/{Student,KD,EA-KD}.yaml --seeds 1 2 3
tools/sweep_lm.py --configs ... --seeds 1 2 3 TRAINING.MAX_STEPS 200

Started again it goes on: what has ended is not run again; where a config or a teacher has changed
since, nothing is trained before --overwrite says so. Teachers are trained first. Below the
means stand the differences of each EA-X and X, paired by seed.
"""

import argparse
import sys

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from eakd_det.utils import command_line
from eakd_det.utils.errors import UserError
from llm.config import language_config
from llm.evaluation import METRICS
from llm.log import show_progress
from llm.sweep import sweep
from llm.tables import differences, table


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configs", required=True, nargs="+", metavar="FILE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], metavar="N")
    parser.add_argument(
        "--overwrite", action="store_true", help="train anew what was made with another config"
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    return command_line.parse_arguments(parser, language_config())


def main(args):
    show_progress()
    rows = sweep(args.configs, args.seeds, args.opts, overwrite=args.overwrite)
    for metric in METRICS:
        parts = [f"{metric}, percent", table(rows, metric), differences(rows, metric)]
        print("\n\n".join(part for part in parts if part) + "\n")


if __name__ == "__main__":
    try:
        main(parse_arguments())
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped. Started again it goes on.")
