"""Engines that train the jobs of a sweep: this machine, a SLURM cluster, a Ray cluster."""

import argparse
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
    if args.launcher == "slurm":
        from .slurm import Slurm

        return Slurm(dict(args.slurm), Path(args.output_dir, "slurm"))
    if args.launcher == "ray":
        from .ray import Ray

        return Ray(args.ray_address)
    return Local(args.jobs)
