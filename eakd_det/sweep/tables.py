"""Tables of a sweep: mean and standard deviation over the seeds beside the published figures."""

import csv
import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eakd_det.config.safe_yaml import read_yaml
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import read_json, write_atomically
from eakd_det.utils.statistics import mean_and_interval

from .formats import as_latex, as_markdown
from .kinds import FIRST, RunKind
from .names import ALONE, CONTROLS, tell_apart

logger = logging.getLogger(__name__)

# Origin that the runs of a config must have in common, as far as it is noted.
_ALIKE = {
    "fingerprint": "configs or options",
    "teacher": "configs of their teacher",
    "teacher_weights": "weights of their teacher",
}


def collect(kind: RunKind, output_dir: str) -> list[dict[str, Any]]:
    """Return the finished runs of a kind in a sweep, one dict each, by config and seed.

    Returns:
        "method" and "models" as tables call them; "folder", and "config", its last parts; the
        "dataset", "seed", "options" and origin of sweep.json; and the contents of result.json,
        with the metrics of the kind.
    """
    rows = []
    for path in Path(output_dir).glob("*/*/seed*/sweep.json"):
        record, result = read_json(path), read_json(path.with_name("result.json"))
        if not result or record.get("kind", FIRST) != kind.title:
            continue
        method, models = path.parts[-4:-2]
        kept = {key: record[key] for key in ("dataset", "seed", "options", "fingerprint")}
        kept |= {key: record.get(key, "") for key in ("teacher", "teacher_weights")}
        # Sweeps of earlier versions noted no names: those of the folders.
        names = {"method": record.get("method", method), "models": record.get("models", models)}
        row = {**names, "folder": str(path.parent), "config": f"{method}/{models}", **kept}
        rows.append({**row, **result})
    tell_apart(rows, "config")
    return sorted(rows, key=lambda row: (*_order(row), row["seed"]))


def _order(row: dict[str, Any]) -> tuple:
    """Sort key: by dataset and models; there the student alone first, EA-X after X."""
    method = row["method"]
    base = method.removeprefix("EA-")
    alone = ALONE.index(base) if base in ALONE else len(ALONE)
    return row["dataset"], row["models"], alone, base, method != base


def _by_config(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    """Return (dataset, models, method) -> its runs.

    Raises:
        UserError: they are not of one config, one set of options and one teacher.
    """
    groups = {}
    for row in rows:
        groups.setdefault((row["dataset"], row["models"], row["method"]), []).append(row)
    for (_, models, method), group in groups.items():
        for key, what in _ALIKE.items():
            if len({row[key] for row in group} - {""}) > 1:
                seeds = " and ".join(f"{row['seed']} ({row[key][:6]})" for row in group)
                raise UserError(
                    f"The runs of {method}/{models} were made with different {what}: seeds "
                    f"{seeds}. Sweep over all of them again, or delete those that are outdated."
                )
    return groups


def summarize(kind: RunKind, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the metrics of each config over its seeds, in percent: `columns` but "minus".

    Raises:
        UserError: the runs of a config are not alike.
    """
    summary, teacher = [], f"teacher_{kind.main}"
    for (dataset, models, method), group in _by_config(rows).items():
        entry = {"dataset": dataset, "models": models, "method": method}
        entry |= _spreads(kind, [{key: row[key] for key in kind.metrics} for row in group])
        teachers = [row[teacher] for row in group if row.get(teacher) is not None]
        entry[teacher] = float(np.mean(teachers)) if teachers else None
        summary.append(entry | _published(kind, group[0]["folder"], entry["mean"]))
    return summary


def _published(kind: RunKind, folder: str, mean: float) -> dict[str, Any]:
    """Return the columns of the published figure for a run; empty without one."""
    path = os.path.join(folder, "config.yaml")
    figure = kind.published(read_yaml(path)) if os.path.exists(path) else None
    if figure is None or kind.main not in figure.figures:
        return {}
    published = figure.figures[kind.main]
    columns = {"published_mean": published, "published_std": figure.std}
    return columns | {"difference": mean - published, "source": figure.source}


def _spreads(kind: RunKind, values: list[dict[str, float]]) -> dict[str, Any]:
    """Compute `mean_and_interval` of the main metric, and of others under KEY_NAME."""
    main, *others = kind.metrics
    found = mean_and_interval([value[main] for value in values])
    for key in others:
        of = mean_and_interval([value[key] for value in values])
        found |= {f"{key}_{name}": of[name] for name in ("mean", "std", "interval")}
    return found


def columns(kind: RunKind) -> list[str]:
    """Return the columns of table.csv."""
    others = [f"{k}_{name}" for k in [*kind.metrics][1:] for name in ("mean", "std", "interval")]
    return [
        *("dataset", "models", "method", "minus", "runs", "mean", "std", "interval", *others),
        *(f"teacher_{kind.main}", "published_mean", "published_std", "difference", "source"),
    ]


def compare(
    kind: RunKind, rows: list[dict[str, Any]], pairs: Sequence[tuple[str, str]] = ()
) -> list[dict[str, Any]]:
    """Return the differences between two methods, seed by seed, for the same models.

    Args:
        rows: of `collect`.
        pairs: (method, other method) beside EA-X and X, and EA-X and its controls EA-X-matched and
            EA-X-teacher, which are found by their names. The student alone may be one of them.

    Returns:
        Entries as `summarize` gives them, of method minus "minus", where seeds are common.

    Raises:
        UserError: the runs of a config are not alike.
    """
    groups = _by_config(rows)
    methods = dict.fromkeys(row["method"] for row in rows)
    found = [
        pair
        for method in methods
        for pair in [(f"EA-{method}", method), *((method, f"{method}-{x}") for x in CONTROLS)]
    ]
    differences = []
    for method, other in dict.fromkeys([*found, *pairs]):
        found_seeds = False
        for dataset, models in dict.fromkeys(key[:2] for key in groups):
            ours, theirs = (
                {row["seed"]: row for row in _runs_of(groups, dataset, models, name)}
                for name in (method, other)
            )
            seeds = sorted(ours.keys() & theirs.keys())
            if seeds:
                found_seeds = True
                entry = {"dataset": dataset, "models": models, "method": method, "minus": other}
                differ = [
                    {key: ours[seed][key] - theirs[seed][key] for key in kind.metrics}
                    for seed in seeds
                ]
                entry |= _spreads(kind, differ)
                differences.append({**entry, "seeds": seeds})
        if (method, other) in pairs and not found_seeds:
            logger.warning("--pairs %s:%s: no seed is finished for both", method, other)
    _warn_of_unpaired(groups, differences)
    return differences


def _warn_of_unpaired(
    groups: Iterable[tuple[str, str, str]], differences: list[dict[str, Any]]
) -> None:
    """Warn of each EA-X without an X to compare it with: often its X has another name."""
    paired = {
        (entry["dataset"], entry["models"], entry[side])
        for entry in differences
        for side in ("method", "minus")
    }
    for dataset, models, method in groups:
        if method.startswith("EA-") and (dataset, models, method) not in paired:
            other = method.removeprefix("EA-")
            logger.warning(
                "%s of %s on %s has no counterpart: no run of %s with these models and one of its "
                "seeds is finished.",
                *(method, models, dataset, other),
            )


def _runs_of(
    groups: dict[tuple[str, str, str], list[dict[str, Any]]], dataset: str, models: str, method: str
) -> list[dict[str, Any]]:
    """Return the runs of a method; those of a student alone have no teacher in "models".

    Classifiers are named <teacher>_<student>, detectors <student>-<teacher>.
    """
    if (dataset, models, method) in groups or not method.startswith("Student"):
        return groups.get((dataset, models, method), [])
    for (of, student, name), group in groups.items():
        is_student = models.startswith(f"{student}-") or models.endswith(f"_{student}")
        if (of, name) == (dataset, method) and is_student:
            return group
    return []


def write_tables(kind: RunKind, output_dir: str, pairs: Sequence[tuple[str, str]] = ()) -> str:
    """Write table.md, table.csv, table.tex and results.json of the finished runs.

    Returns:
        The text of table.md.

    Raises:
        UserError: there is no finished run, or the runs of a config are not alike.
    """
    rows = collect(kind, output_dir)
    if not rows:
        raise UserError(f"{output_dir} holds no finished run.")
    kind = kind.measured(rows)
    summary, differences = summarize(kind, rows), compare(kind, rows, pairs)
    options = {f"{row['method']}/{row['models']}": row["options"] for row in rows}
    texts = {
        "table.md": as_markdown(kind, summary, differences, options),
        "table.tex": as_latex(kind, summary, differences),
        "results.json": json.dumps(
            {"runs": rows, "summary": summary, "differences": differences}, indent=2
        ),
    }
    for name, text in texts.items():
        with write_atomically(os.path.join(output_dir, name)) as f:
            f.write(text)
    with write_atomically(os.path.join(output_dir, "table.csv")) as f:
        writer = csv.DictWriter(f, columns(kind), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(summary + differences)
    return texts["table.md"]
