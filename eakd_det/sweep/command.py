"""The command of a sweep, as tools/sweep.py and tools/sweep_lm.py have it."""

import argparse
import contextlib
import logging
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from eakd_det.utils.errors import UserError

from . import launchers, processes
from .detectors import Detectors
from .find_kind import kind_of_configs, kind_of_folder
from .grid import plan
from .kinds import RunKind
from .repeat import check_dataset, folder_of, grid_of, repetition_table, select_rows
from .run import Run
from .runner import run_sweep
from .runs_csv import check_output_dir, read_runs
from .status import status
from .tables import write_rows, write_tables


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
    failures: dict[str, str] = {}
    try:
        _run(args, kinds, tools, failures)
    except UserError as error:
        failures["error"] = str(error)
    except KeyboardInterrupt:
        still = "; what was submitted goes on" if args.detach else ""
        command = shlex.join([sys.executable, *sys.argv])
        print(f"\nStopped{still}. To continue: {command}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    if failures:
        sys.exit("\n".join(f"{title}: {why}" for title, why in failures.items()))


def _run(
    args: argparse.Namespace, kinds: Sequence[RunKind], tools: Path, failures: dict[str, str]
) -> None:
    """Do what the command line names; failures of runs are added to `failures`."""
    if args.status:
        runs = _plan(args, kind_of_configs(args.configs, kinds)) if args.configs else []
        print(status(args.output_dir, runs))
    elif args.from_csv:
        check_output_dir(args.output_dir, args.from_csv)
        kind, rows = read_runs(args.from_csv, kinds)
        print(f"\n{write_rows(kind, rows, args.output_dir, args.pairs)}")
    elif args.table_only:
        kind = kind_of_folder(args.output_dir, kinds)
        print(f"\n{write_tables(kind, args.output_dir, args.pairs)}")
    elif args.repeat:
        file, name = args.repeat
        rows = select_rows(read_runs([file], kinds)[1], name, args.seeds, file)
        folder = folder_of(rows, args.output_dir)
        args = argparse.Namespace(**{**vars(args), **grid_of(rows), "output_dir": folder})
        kind = kind_of_configs(args.configs, kinds)
        runs = _plan(args, kind)
        check_dataset(rows, runs)
        finished = [run for run in runs if run.result()]
        failures.update(_train(args, runs, str(tools / kind.script)))
        table = "" if args.detach else repetition_table(kind, rows, runs, finished)
        print(_submitted(args) if args.detach else f"\n{table}")
    else:
        kind = kind_of_configs(args.configs, kinds)
        failures.update(_train(args, _plan(args, kind), str(tools / kind.script)))
        table = "" if args.detach else write_tables(kind, args.output_dir, args.pairs)
        print(_submitted(args) if args.detach else f"\n{table}")


def _submitted(args: argparse.Namespace) -> str:
    """Describe what to do after --detach."""
    folder = shlex.join(["--output-dir", args.output_dir])
    last = (
        "the same command without --detach waits for the runs, and prints both figures"
        if args.repeat
        else f"{folder} --table-only writes the tables"
    )
    return f"Submitted. {folder} --status shows the progress, and {last}."


def _plan(args: argparse.Namespace, kind: RunKind) -> list[Run]:
    data = {flag: vars(args).get(flag[2:].replace("-", "_")) for flag in Detectors.flags}
    data = {flag: value for flag, value in data.items() if value is not None}
    grid = args.configs, args.seeds, args.output_dir, args.opts, data
    return plan(kind, *grid, args.gpus_per_run, args.vary)


def _train(args: argparse.Namespace, runs: list[Run], script: str) -> dict[str, str]:
    """Return the failures of `run_sweep`."""
    with contextlib.closing(launchers.make(args)) as launcher:
        return run_sweep(
            *(runs, script, args.output_dir, launcher),
            gpus=args.gpus_per_run,
            overwrite=args.overwrite,
            detach=args.detach,
        )
