#!/usr/bin/env python
"""Train a grid of configs and seeds, and print a table of means and deviations.

tools/sweep.py --configs configs/CIFAR100/{KD,EA-KD}/resnet32x4_resnet8x4.yaml --seeds 1 2 3 4 5
tools/sweep.py --configs ... --seeds 1 2 3 --output-dir output/sweep/short --jobs 2 SOLVER.EPOCHS 60
tools/sweep.py --configs configs/Fashion-Detection/{DKD,EA-DKD}-R18-R101.yaml --seeds 1 2 3
tools/sweep.py --configs configs/LLM/tiny/{Student,KD,EA-KD}.yaml --seeds 1 2 3
tools/sweep.py --output-dir output/sweep/short --table-only

The configs decide the kind of the runs: detectors (AP, AP50 and AP75), classifiers (top-1) or
language models (ROUGE-L and exact match). Ctrl-C stops the sweep; the same command continues it.
Finished runs are not trained again. Where a config, an option or a teacher has changed since,
nothing is trained without --overwrite, which starts those runs over. Missing teachers, and models
that students start from, are trained first.
table.md, table.csv and table.tex of the output folder have the means beside published figures, with
the paired differences of each EA-X and X, and of EA-X and its controls; results.json has the
figures of each run.
"""

import argparse
import logging
import shlex
import signal
import sys
from pathlib import Path

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from detectron2.config import get_cfg

from classification.runs import Classifiers
from eakd_det.sweep.detectors import Detectors
from eakd_det.sweep.grid import plan
from eakd_det.sweep.kinds import kind_of_configs, kind_of_folder
from eakd_det.sweep.runner import run_sweep
from eakd_det.sweep.tables import write_tables
from eakd_det.utils import command_line
from eakd_det.utils.errors import UserError
from llm.runs import LanguageModels

TOOLS = Path(__file__).resolve().parent
KINDS = (LanguageModels(), Classifiers(), Detectors())


def pair(text):
    method, colon, other = text.partition(":")
    if not (method and colon and other):
        raise argparse.ArgumentTypeError(f"{text!r} is not METHOD:METHOD")
    return method, other


def parse_arguments():
    parser = command_line.make_parser(__doc__, opts="KEY VALUE pairs for every run")
    parser.add_argument("--configs", nargs="+", default=[], metavar="FILE", help="of the grid")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], metavar="N", help="of the grid")
    parser.add_argument(
        "--jobs", type=command_line.positive, default=1, metavar="N", help="processes at once"
    )
    parser.add_argument("--output-dir", default="output/sweep", help="default: %(default)s")
    parser.add_argument(
        "--pairs", nargs="+", type=pair, default=[], metavar="A:B", help="also compare A with B"
    )
    parser.add_argument(
        "--table-only", action="store_true", help="write the tables of finished runs; no training"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="train runs of another config or teacher anew"
    )
    for flag in Detectors.flags:
        kind = "FILE" if flag.endswith("json") else "FOLDER"
        parser.add_argument(flag, metavar=kind, help="of detectors: your data, as for train_net.py")
    args = command_line.parse_arguments(parser, get_cfg())  # the keys of its root alone
    if not args.table_only and not (args.configs and args.seeds):
        parser.error("name --configs and --seeds, or --table-only")
    return args


def data_of(args):
    """The flags that name data, with their values."""
    values = {flag: getattr(args, flag[2:].replace("-", "_")) for flag in Detectors.flags}
    return {flag: value for flag, value in values.items() if value is not None}


def main():
    args = parse_arguments()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    logging.getLogger("eakd_det.sweep").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the processes end, too
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup sets
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    errors = []
    try:
        if args.table_only:
            kind = kind_of_folder(args.output_dir, KINDS)
        else:
            kind = kind_of_configs(args.configs, KINDS)
            runs = plan(kind, args.configs, args.seeds, args.output_dir, args.opts, data_of(args))
            script = str(TOOLS / kind.script)
            failures = run_sweep(runs, script, args.output_dir, args.jobs, overwrite=args.overwrite)
            errors += [f"{title}: {why}" for title, why in failures.items()]
        print(f"\n{write_tables(kind, args.output_dir, args.pairs)}")
    except UserError as error:
        errors.append(f"error: {error}")
    except KeyboardInterrupt:
        print(f"\nStopped. To go on: {shlex.join([sys.executable, *sys.argv])}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    if errors:
        sys.exit("\n".join(errors))


if __name__ == "__main__":
    main()
