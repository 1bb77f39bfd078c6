"""Differences between the students of a report, paired by seed as a sweep pairs them."""

from typing import Any

from eakd_det.sweep.comparison import compare
from eakd_det.sweep.formats import (
    DASH,
    Table,
    dataset_tables,
    difference_notes,
    left_out_notes,
)
from eakd_det.sweep.kinds import ARROW, RunKind
from eakd_det.sweep.names import tell_apart
from eakd_det.sweep.rows import by_config, unmeasured
from eakd_det.sweep.run_files import RunFiles

from .sweeps import STUDENT


def teachers_of(runs: list[RunFiles], kind: RunKind) -> set[str]:
    """Return the labels of undistilled runs whose network is a teacher and no student."""
    networks = {files.run.label: kind.networks(files.config) for files in runs}
    taught = [names for names in networks.values() if names[0]]
    teachers, students = {teacher for teacher, _ in taught}, {student for _, student in taught}
    return {
        label
        for label, (teacher, student) in networks.items()
        if not teacher and student in teachers - students
    }


def difference_tables(
    runs: list[RunFiles], kind: RunKind
) -> tuple[list[Table], list[str], list[str]]:
    """Compute the lead of each distilled student over the student alone, and of EA-X over X.

    A sweep's statistics: differences are paired by seed, and have an interval where there are
    several seeds.

    Returns:
        The tables, notes on them, and sentences on runs that they leave out.
    """
    rows = _rows(runs, kind)
    methods = {(row["models"], row["method"]): set() for row in rows}
    for row in rows:
        methods[row["models"], row["method"]].add(row["seed"])
    pairs = {
        (method, STUDENT): None
        for (models, method), seeds in methods.items()
        if method != STUDENT and seeds & methods.get((models, STUDENT), set())
    }
    differences = compare(kind, rows, list(pairs))
    datasets = dict.fromkeys(entry["dataset"] for entry in differences)
    tables = [
        (header, [[cell.removesuffix(f" ± {DASH}") for cell in line] for line in lines])
        for dataset in datasets
        for header, lines in dataset_tables(kind, dataset, [], differences)[1:]
    ]
    left_out = [
        {
            "dataset": dataset,
            "models": models.split(ARROW)[-1] if method == STUDENT else models,
            "method": method,
            **unmeasured(kind, group),
        }
        for (dataset, models, method), group in by_config(rows).items()
    ]
    left_out = [*dict.fromkeys(left_out_notes(left_out))]  # a student alone has several pairs
    return tables, difference_notes(kind, differences), left_out


def _rows(runs: list[RunFiles], kind: RunKind) -> list[dict[str, Any]]:
    """Return rows as a sweep collects them, without teachers and runs without figures.

    A student alone has a row for each pair of models that it is the student of.
    """
    teachers = teachers_of(runs, kind)
    rows = []
    for files in runs:
        figures = kind.figures(files)
        if files.run.label in teachers or not figures.keys() >= {*kind.metrics.values()}:
            continue
        row = {
            "dataset": kind.dataset(files.config),
            "models": kind.pair(files.config),
            "method": kind.method(files.config) or STUDENT,
            "seed": kind.seed(files.config),
            "options": [],  # not known; without them a label such as "KD T=2" is no lever
            "fingerprint": _fingerprint(files.config, kind.seed_key),
            "teacher": "",  # not known of a run
            "teacher_weights": "",
            "label": files.run.label,
        }
        rows.append(row | {key: figures[name] for key, name in kind.metrics.items()})
    tell_apart(rows, "fingerprint", "label")
    pairs = sorted({row["models"] for row in rows if ARROW in row["models"]})
    return [
        {**row, "models": models}
        for row in rows
        for models in ([x for x in pairs if x.endswith(ARROW + row["models"])] or [row["models"]])
    ]


def _fingerprint(config: dict[str, Any], seed_key: str) -> str:
    """Config without the keys that may differ between seeds."""
    node, _, _ = seed_key.rpartition(".")
    kept = {key: value for key, value in config.items() if key not in (seed_key, "OUTPUT_DIR")}
    if node:
        kept[node] = {k: v for k, v in config[node].items() if f"{node}.{k}" != seed_key}
    return repr(kept)
