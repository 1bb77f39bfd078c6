"""Differences between the students of a report, paired by seed as a sweep pairs them."""

from typing import Any

from eakd_det.sweep.formats import DASH, Table, dataset_tables
from eakd_det.sweep.tables import compare

from .kinds import ALONE, Kind
from .runs import RunFiles

ARROW = " → "  # of "teacher → student"


def teachers_of(runs: list[RunFiles], kind: Kind) -> set[str]:
    """Labels of the runs that are no students: others are taught by their model, and none is it."""
    models = {files.run.label: kind.models(files.config).split(ARROW) for files in runs}
    taught = [names for names in models.values() if len(names) > 1]
    teachers, students = {names[0] for names in taught}, {names[-1] for names in taught}
    return {
        label
        for label, names in models.items()
        if len(names) == 1 and names[0] in teachers - students
    }


def difference_tables(runs: list[RunFiles], kind: Kind) -> list[Table]:
    """Compute the lead of each distilled student over the student alone, and of EA-X over X.

    A sweep's statistics: differences are paired by seed, and have an interval where there are
    several seeds.
    """
    rows = _rows(runs, kind)
    methods = {(row["models"], row["method"]): set() for row in rows}
    for row in rows:
        methods[row["models"], row["method"]].add(row["seed"])
    pairs = {
        (method, ALONE): None
        for (models, method), seeds in methods.items()
        if method != ALONE and seeds & methods.get((models, ALONE), set())
    }
    differences = compare(kind.sweep, rows, list(pairs))
    datasets = dict.fromkeys(entry["dataset"] for entry in differences)
    return [
        (header, [[cell.removesuffix(f" ± {DASH}") for cell in line] for line in lines])
        for dataset in datasets
        for header, lines in dataset_tables(kind.sweep, dataset, [], differences)[1:]
    ]


def _rows(runs: list[RunFiles], kind: Kind) -> list[dict[str, Any]]:
    """As a sweep collects them; a student alone for each pair of models that it is the student of.

    Runs without figures and teachers are left out.
    """
    teachers = teachers_of(runs, kind)
    rows = []
    for files in runs:
        figures = kind.figures(files)
        if files.run.label in teachers or not figures.keys() >= {*kind.sweep.metrics.values()}:
            continue
        row = {
            "dataset": kind.dataset(files.config),
            "models": kind.models(files.config),
            "method": kind.method(files.config) or ALONE,
            "seed": _seed(files.config),
            "fingerprint": _fingerprint(files.config),
            "teacher": "",  # no run notes which it was
            "teacher_weights": "",
            "label": files.run.label,
        }
        rows.append(row | {key: figures[name] for key, name in kind.sweep.metrics.items()})
    _tell_apart(rows)
    pairs = sorted({row["models"] for row in rows if ARROW in row["models"]})
    return [
        {**row, "models": models}
        for row in rows
        for models in ([x for x in pairs if x.endswith(ARROW + row["models"])] or [row["models"]])
    ]


def _tell_apart(rows: list[dict[str, Any]]) -> None:
    """Call methods by their runs where one name stands for several configs."""
    configs: dict[tuple[str, str, str], set[str]] = {}
    for row in rows:
        key = row["dataset"], row["models"], row["method"]
        configs.setdefault(key, set()).add(row["fingerprint"])
    for row in rows:
        if len(configs[row["dataset"], row["models"], row["method"]]) > 1:
            row["method"] = row["label"]


def _seed(config: dict[str, Any]) -> int:
    return config["SEED"] if "SEED" in config else config["train"].get("seed", -1)


def _fingerprint(config: dict[str, Any]) -> str:
    """The config but for what may differ between seeds."""
    return repr({key: value for key, value in config.items() if key not in ("SEED", "OUTPUT_DIR")})
