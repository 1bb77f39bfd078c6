"""Command line of a sweep, as tools/sweep.py and tools/sweep_lm.py have it."""

import argparse
import logging
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode

from eakd_det.utils import command_line
from eakd_det.utils.errors import UserError

from .detectors import Detectors
from .grid import plan
from .kinds import RunKind, kind_of_configs, kind_of_folder
from .runner import run_sweep
from .tables import write_tables


def parse_arguments(
    description: str,
    *configs: CfgNode,
    seeds: Sequence[int] = (),
    output_dir: str = "output/sweep",
    data: bool = True,
) -> argparse.Namespace:
    """Parse the command line of this process.

    Args:
        description: docstring of the tool.
        configs: defaults of all keys, as in `command_line.parse_arguments`.
        seeds, output_dir: defaults of --seeds and --output-dir.
        data: whether there are flags for the data of detectors.
    """
    parser = command_line.make_parser(description, opts="KEY VALUE pairs for every run")
    parser.add_argument("--configs", nargs="+", default=[], metavar="FILE", help="configs to train")
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=list(seeds),
        metavar="N",
        help="seeds of each config",
    )
    parser.add_argument(
        "--jobs",
        type=command_line.positive,
        default=1,
        metavar="N",
        help="number of runs at a time; 1 by default",
    )
    parser.add_argument("--output-dir", default=output_dir, help="default: %(default)s")
    parser.add_argument(
        "--pairs", nargs="+", type=_pair, default=[], metavar="A:B", help="also compare A with B"
    )
    parser.add_argument(
        "--table-only",
        action="store_true",
        help="write the tables of finished runs, without training",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="retrain runs whose config, options or teacher have changed",
    )
    for flag in Detectors.flags if data else ():
        kind = "FILE" if flag.endswith("json") else "FOLDER"
        parser.add_argument(
            flag, metavar=kind, help="your own data for detectors, as for train_net.py"
        )
    args = command_line.parse_arguments(parser, *configs)
    if not args.table_only and not (args.configs and args.seeds):
        parser.error("name --configs and --seeds, or --table-only")
    return args


def run(args: argparse.Namespace, kinds: Sequence[RunKind], tools: Path) -> None:
    """Train what is left of a grid, and print its tables; errors end the process in words.

    Args:
        args: of `parse_arguments`.
        kinds: possible kinds of the runs.
        tools: folder of the kinds' scripts.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    logging.getLogger("eakd_det.sweep").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the processes end, too
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup sets
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    errors = []
    try:
        if args.table_only:
            kind = kind_of_folder(args.output_dir, kinds)
        else:
            kind = kind_of_configs(args.configs, kinds)
            data = {flag: vars(args).get(flag[2:].replace("-", "_")) for flag in Detectors.flags}
            data = {flag: value for flag, value in data.items() if value is not None}
            runs = plan(kind, args.configs, args.seeds, args.output_dir, args.opts, data)
            script = str(tools / kind.script)
            failures = run_sweep(runs, script, args.output_dir, args.jobs, overwrite=args.overwrite)
            errors += [f"{title}: {why}" for title, why in failures.items()]
        print(f"\n{write_tables(kind, args.output_dir, args.pairs)}")
    except UserError as error:
        errors.append(f"error: {error}")
    except KeyboardInterrupt:
        print(f"\nStopped. To continue: {shlex.join([sys.executable, *sys.argv])}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    if errors:
        sys.exit("\n".join(errors))


def _pair(text: str) -> tuple[str, str]:
    method, colon, other = text.partition(":")
    if not (method and colon and other):
        raise argparse.ArgumentTypeError(f"{text!r} is not METHOD:METHOD")
    return method, other
