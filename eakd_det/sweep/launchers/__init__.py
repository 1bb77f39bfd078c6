"""Engines that train the jobs of a sweep: this machine, a SLURM cluster, a Ray cluster."""

import argparse
import os
from pathlib import Path

from .base import Handle, Launcher
from .local import Local

__all__ = ["Handle", "Launcher", "Local", "make"]


def make(args: argparse.Namespace) -> Launcher:
    """Build the launcher that --launcher names; only then is its package imported.

    Args:
        args: of `eakd_det.sweep.arguments.parse`.

    Raises:
        UserError: its package is not installed, or its cluster is not there.
    """
    if args.launcher == "local":
        return Local(args.jobs)
    _let_workers_import()
    if args.launcher == "slurm":
        from .slurm import Slurm

        return Slurm(dict(args.slurm), Path(args.output_dir, "slurm"))
    from .ray import Ray

    return Ray(args.ray_address)


def _let_workers_import() -> None:
    """Let processes that a cluster starts in this environment import this checkout."""
    root = str(Path(__file__).resolve().parents[3])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
