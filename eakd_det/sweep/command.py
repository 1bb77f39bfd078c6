"""The command of a sweep, as tools/sweep.py and tools/sweep_lm.py have it."""

import argparse
import contextlib
import logging
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from eakd_det.utils.errors import UserError

from . import launchers, processes
from .detectors import Detectors
from .grid import plan
from .kinds import RunKind, kind_of_configs, kind_of_folder
from .runner import run_sweep
from .status import status
from .tables import write_tables


def run(args: argparse.Namespace, kinds: Sequence[RunKind], tools: Path) -> None:
    """Train what is left of a grid, and print its tables; errors end the process in words.

    Args:
        args: of `arguments.parse`.
        kinds: possible kinds of the runs.
        tools: folder of the kinds' scripts.
    """
    if sys.platform == "win32":  # without process groups and inherited locks
        sys.exit("error: sweeps run on Linux and macOS alone; train the configs one by one.")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    logging.getLogger("eakd_det.sweep").setLevel(logging.INFO)
    processes.interrupt_on_signals()
    _let_workers_import()
    errors = []
    try:
        if args.status and not args.configs:
            print(status(args.output_dir))
            return
        if args.table_only:
            kind = kind_of_folder(args.output_dir, kinds)
        else:
            kind = kind_of_configs(args.configs, kinds)
            data = {flag: vars(args).get(flag[2:].replace("-", "_")) for flag in Detectors.flags}
            data = {flag: value for flag, value in data.items() if value is not None}
            runs = plan(kind, args.configs, args.seeds, args.output_dir, args.opts, data)
            if args.status:
                print(status(args.output_dir, runs))
                return
            script = str(tools / kind.script)
            with contextlib.closing(launchers.make(args)) as launcher:
                failures = run_sweep(
                    *(runs, script, args.output_dir, launcher),
                    gpus=args.gpus_per_run,
                    overwrite=args.overwrite,
                    detach=args.detach,
                )
            if args.detach:
                print("Submitted. --status shows the progress, --table-only writes the tables.")
                return
            errors += [f"{title}: {why}" for title, why in failures.items()]
        print(f"\n{write_tables(kind, args.output_dir, args.pairs)}")
    except UserError as error:
        errors.append(f"error: {error}")
    except KeyboardInterrupt:
        print(f"\nStopped. To continue: {shlex.join([sys.executable, *sys.argv])}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    if errors:
        sys.exit("\n".join(errors))


def _let_workers_import() -> None:
    """Let processes that a cluster starts in this environment import this checkout."""
    root = str(Path(__file__).resolve().parents[2])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
