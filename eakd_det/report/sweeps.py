"""The tables of sweeps, for a report."""

import os
from dataclasses import dataclass

from eakd_det.sweep.comparison import compare
from eakd_det.sweep.formats import Table, dataset_tables, notes
from eakd_det.sweep.kinds import RunKind
from eakd_det.sweep.names import ALONE
from eakd_det.sweep.rows import collect
from eakd_det.sweep.tables import summarize

STUDENT = ALONE[1]  # method of a student without a teacher


@dataclass(frozen=True)
class Sweep:
    """Tables of the runs of a sweep on one dataset.

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


def read_sweeps(folder: str, kind: RunKind) -> list[Sweep]:
    """Return the tables of the runs of a kind in a sweep's folder; none for another folder."""
    rows = collect(kind, folder)
    if not rows:
        return []
    kind = kind.measured(rows)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    pairs = [(method, STUDENT) for method in methods if STUDENT in methods and method not in ALONE]
    summary, differences = summarize(kind, rows), compare(kind, rows, pairs)
    has_models = len({row["models"] for row in rows if row["method"] not in ALONE}) > 1
    return [
        Sweep(
            folder,
            dataset,
            dataset_tables(kind, dataset, summary, differences),
            notes(kind, summary, differences),
            {
                row["folder"]: (
                    f"{row['method']} {row['models']}" if has_models else row["method"],
                    row["seed"],
                )
                for row in rows
                if row["dataset"] == dataset
                and os.path.exists(os.path.join(row["folder"], kind.log))
            },
        )
        for dataset in dict.fromkeys(entry["dataset"] for entry in summary)
    ]
