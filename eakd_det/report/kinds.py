"""What reports of detectors and of classifiers differ in."""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from eakd_det.analysis.metrics import METRICS, Series
from eakd_det.sweep.formats import Table, dataset_tables, notes
from eakd_det.sweep.kinds import SweepKind
from eakd_det.sweep.published import Published, method_name
from eakd_det.sweep.tables import collect, compare, summarize
from eakd_det.utils.errors import UserError

from .runs import RunFiles

ALONE = "Student"  # the method of a student without a teacher
PLAIN = (ALONE, "Teacher")


@dataclass(frozen=True)
class Sweep:
    """The tables of the runs of a sweep on one dataset.

    Attributes:
        folder: of the sweep.
        dataset: of all its runs.
        tables: each a header and rows of text.
        notes: on the figures.
        runs: folder -> the config that it is a run of, and its seed.
    """

    folder: str
    dataset: str
    tables: list[Table]
    notes: list[str]
    runs: dict[str, tuple[str, int]]


class Kind(ABC):
    """One kind of runs.

    Attributes:
        title: of several, in the middle of a sentence.
        columns: of the table of metrics, percent; the first is the main one.
        sweep: how runs of this kind are swept.
    """

    title: str
    columns: tuple[str, ...]
    sweep: SweepKind

    @abstractmethod
    def is_kind_of(self, config: dict[str, Any]) -> bool:
        """Whether the config of a run is of this kind."""

    @abstractmethod
    def dataset(self, config: dict[str, Any]) -> str:
        """What the run is tested on."""

    @abstractmethod
    def models(self, config: dict[str, Any]) -> str:
        """ "teacher -> student", or the student alone."""

    @abstractmethod
    def distillation(self, config: dict[str, Any]) -> dict[str, Any]:
        """The node DISTILL of the config."""

    @abstractmethod
    def figures(self, files: RunFiles) -> dict[str, float]:
        """Column -> what the run has reached in the end, percent."""

    @abstractmethod
    def curve(self, files: RunFiles) -> Series:
        """The main figure over the iterations."""

    @abstractmethod
    def teacher(self, files: RunFiles) -> float | None:
        """The teacher's main figure, if the run knows it."""

    @abstractmethod
    def published(self, files: RunFiles) -> Published | None:
        """What a paper reports for it."""

    def sweeps(self, folder: str) -> list[Sweep]:
        """The tables of a folder that holds a sweep of such runs; of another one, nothing."""
        rows = collect(self.sweep, folder)
        methods = list(dict.fromkeys(row["method"] for row in rows))
        pairs = [(method, ALONE) for method in methods if ALONE in methods and method not in PLAIN]
        summary, differences = summarize(self.sweep, rows), compare(self.sweep, rows, pairs)
        has_models = len({row["models"] for row in rows if row["method"] not in PLAIN}) > 1
        return [
            Sweep(
                folder,
                dataset,
                dataset_tables(self.sweep, dataset, summary, differences),
                notes(self.sweep, summary),
                {
                    row["folder"]: (
                        f"{row['method']} {row['models']}" if has_models else row["method"],
                        row["seed"],
                    )
                    for row in rows
                    if row["dataset"] == dataset
                    and os.path.exists(os.path.join(row["folder"], METRICS))
                },
            )
            for dataset in dict.fromkeys(entry["dataset"] for entry in summary)
        ]

    def method(self, config: dict[str, Any]) -> str:
        """As tables call it: "EA-DKD+LS"; empty without distillation."""
        return method_name(self.distillation(config))


def kind_of(runs: list[RunFiles], sweeps: dict[Kind, list[Sweep]], kinds: list[Kind]) -> Kind:
    """The kind that all runs and sweeps are of.

    Raises:
        UserError: one is of none, or they are of several.
    """
    found = {sweep.folder: kind for kind, of_kind in sweeps.items() for sweep in of_kind}
    for files in runs:
        fitting = [kind for kind in kinds if kind.is_kind_of(files.config)]
        if not fitting:
            raise UserError(
                f"{files.run.folder}/config.yaml is the config neither of a detector nor of a "
                "classifier."
            )
        found[files.run.folder] = fitting[0]
    if len(set(found.values())) > 1:
        lines = [f"  {folder}: {kind.title}" for folder, kind in found.items()]
        raise UserError("\n".join(["A report is of runs of one kind, and here are:", *lines]))
    return next(iter(found.values()))
