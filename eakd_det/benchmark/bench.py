"""A run of the benchmark: its settings, and the tables that its parts add."""

import argparse
from collections.abc import Callable
from typing import Any

import torch

from eakd_det.utils.device import available_device

from .batches import Size
from .measure import Builders, Figures, measure
from .tables import table

CPU_SIZE, GPU_SIZE = Size(2, 480, 640), Size(8, 800, 1333)
GPU_BLOCK, GPU_WARMUP = 3, 4  # steps; of the first ones some prepare, compile or capture


class Bench:
    """Measures variants, reports a table of each group, and keeps the figures.

    Attributes:
        args: of `tools/benchmark.py`.
        folder: for temporary files.
        report: called with the text of each table.
        on_gpu: whether there is a GPU, which everything then runs on.
        measured: name of a table -> variant -> column -> figure.
    """

    def __init__(self, args: argparse.Namespace, folder: str, report: Callable[[str], object]):
        self.args, self.folder, self.report = args, folder, report
        self.device = torch.device(available_device())
        self.on_gpu = self.device.type == "cuda"
        self.rounds: int = args.rounds
        default = GPU_SIZE if self.on_gpu else CPU_SIZE
        self.size = default if args.size is None else Size(*args.size)
        self.measured: dict[str, dict[str, Figures]] = {}

    def steps(self, name: str, builders: Builders, **options: Any) -> dict[str, float]:
        """Measure training steps, `add` with blocks of consecutive steps on a GPU."""
        if self.on_gpu:
            options = {"warmup": GPU_WARMUP, "block": GPU_BLOCK, **options}
        return self.add(name, builders, **options)

    def add(
        self,
        name: str,
        builders: Builders,
        *,
        title: str,
        base: str,
        rounds: int | None = None,
        notes: dict[str, str] | None = None,
        more: Callable[[dict[str, Figures]], None] | None = None,
        **options: int,
    ) -> dict[str, float]:
        """Measure the variants of a table, report and keep it.

        Args:
            name: of the table.
            builders: as of `measure`.
            title, base, notes: as of `table`.
            rounds: as of `measure`; by default those of the command line.
            more: adds figures before the table is reported.
            options: `warmup` and `block` of `measure`.

        Returns:
            Variant -> seconds.
        """
        rows = measure(builders, rounds or self.rounds, title=title, **options)
        seconds = {variant: figures["seconds"] for variant, figures in rows.items()}
        if more is not None:
            more(rows)
        self.keep(name, rows, title=title, base=base, notes=notes)
        return seconds

    def keep(self, name: str, rows: dict[str, Figures], **options: Any) -> None:
        """Keep figures that are measured, and report their `table`."""
        self.measured[name] = rows
        self.report(f"{table(rows=rows, **options)}\n")
