#!/usr/bin/env python
"""Train a grid of configs and seeds, and print a table of means and deviations.

tools/sweep.py --configs configs/CIFAR100/{KD,EA-KD}/resnet32x4_resnet8x4.yaml --seeds 1 2 3 4 5
tools/sweep.py --configs ... --seeds 1 2 3 --output-dir output/sweep/short --jobs 2 SOLVER.EPOCHS 60
tools/sweep.py --output-dir output/sweep/short --table-only

Ctrl-C stops it; the same command goes on where it was. What is finished is not trained again; a
run whose config or options have changed since starts over. Missing teachers are trained first. The
means stand beside published figures, with the paired differences of each EA-X and X, in table.md,
table.csv and table.tex of the output folder; results.json has the figures of each run.
"""

import argparse
import logging
import shlex
import signal
import sys
import warnings
from pathlib import Path

# Detectron2's imports announce deprecations of torch and setuptools, not of anything of the user's.
warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
warnings.filterwarnings("ignore", category=UserWarning, module="(detectron2|torch)")

from classification.grid import plan
from classification.sweep import run_sweep
from classification.tables import write_tables
from eakd_det.config import split_options
from eakd_det.errors import UserError

SCRIPT = Path(__file__).resolve().with_name("train_classifier.py")


def pair(text):
    method, colon, other = text.partition(":")
    if not (method and colon and other):
        raise argparse.ArgumentTypeError(f"{text!r} is not METHOD:METHOD")
    return method, other


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configs", nargs="+", default=[], metavar="FILE", help="of the grid")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], metavar="N", help="of the grid")
    parser.add_argument("--jobs", type=positive, default=1, metavar="N", help="processes at once")
    parser.add_argument("--output-dir", default="output/sweep", help="default: %(default)s")
    parser.add_argument(
        "--pairs", nargs="+", type=pair, default=[], metavar="A:B", help="also compare A with B"
    )
    parser.add_argument(
        "--table-only", action="store_true", help="of what is finished; no training"
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs for every run")
    words, options = split_options(sys.argv[1:])
    args = parser.parse_args(words)
    args.opts += options
    if not args.table_only and not (args.configs and args.seeds):
        parser.error("name --configs and --seeds, or --table-only")
    return args


def main():
    args = parse_arguments()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    logging.getLogger("classification").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the processes end, too
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup sets
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    errors = []
    try:
        if not args.table_only:
            runs = plan(args.configs, args.seeds, args.output_dir, args.opts)
            failures = run_sweep(runs, str(SCRIPT), args.output_dir, args.jobs)
            errors += [f"{title}: {why}" for title, why in failures.items()]
        print(f"\n{write_tables(args.output_dir, args.pairs)}")
    except UserError as error:
        errors.append(f"error: {error}")
    except KeyboardInterrupt:
        print(f"\nStopped. To go on: {shlex.join([sys.executable, *sys.argv])}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    if errors:
        sys.exit("\n".join(errors))


if __name__ == "__main__":
    main()
