"""Rows of a sweep, one a run: read from its folder, grouped by config, averaged over seeds."""

import logging
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from detectron2.utils.logger import log_first_n

from eakd_det.config.safe_yaml import read_yaml
from eakd_det.utils.environment import ROOT
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import read_json
from eakd_det.utils.statistics import mean_and_interval

from .kinds import FIRST, Config, RunKind
from .names import ALONE, tell_apart
from .vary import order, split_method

# Origin that the runs of a config must have in common, as far as it is noted.
_ALIKE = {
    "fingerprint": "configs or options",
    "teacher": "configs of their teacher",
    "teacher_weights": "weights of their teacher",
}


# (dataset, models, method) -> its runs.
Groups = dict[tuple[str, str, str], list[dict[str, Any]]]


def collect(kind: RunKind, output_dir: str) -> list[dict[str, Any]]:
    """Return the finished runs of a kind in a sweep, one dict each, by config and seed.

    Returns:
        "method" and "models" as tables call them; "folder", and "config", its last parts; "file",
        the path of the config file; the "dataset", "seed", "options" and origin of sweep.json; and
        the contents of result.json, with the metrics of the kind.
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
        row["file"] = next(iter(record.get("arguments", [])[1:2]), "")
        rows.append({**row, **result})
    tell_apart(rows, "config")
    return in_order(rows)


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort runs as tables have them."""
    return sorted(rows, key=lambda row: (*_order(row), row["seed"]))


def _order(row: dict[str, Any]) -> tuple:
    """Sort key: by dataset and models; there the student alone first, EA-X after X."""
    method, lever = split_method(row["method"])
    base = method.removeprefix("EA-")
    alone = ALONE.index(base) if base in ALONE else len(ALONE)
    return row["dataset"], row["models"], alone, base, method != base, order(lever)


def by_config(rows: Iterable[dict[str, Any]]) -> Groups:
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


def find_config(file: str) -> str | None:
    """Return the path of a config of a runs.csv from the current folder; None if it is missing."""
    found = (path for path in (ROOT / file, Path(file)) if path.is_file())
    path = next(found, None)
    return None if path is None else os.path.relpath(path)


def config_of(kind: RunKind, row: dict[str, Any]) -> Config | None:
    """Return the config of a run: of its folder, or for a row of runs.csv of the config file."""
    if row["folder"]:
        path = os.path.join(row["folder"], "config.yaml")
        return read_yaml(path) if os.path.exists(path) else None
    file = find_config(row["file"])
    try:
        return None if file is None else kind.load(file, row["options"])
    except UserError as error:  # it has changed since; the table and each lever's figure ask for it
        text = f"{row['place']}: its config cannot be loaded any more: {error}"
        log_first_n(logging.WARNING, text, key="message")
        return None


def pairs_of(row: Mapping[str, Any]) -> dict[str, str]:
    """Return KEY -> VALUE of a run's options."""
    return dict(zip(row["options"][::2], row["options"][1::2], strict=True))


def is_measured(kind: RunKind, row: Mapping[str, Any]) -> bool:
    """Return whether the figures of a run are numbers; those without detections are NaN."""
    return all(math.isfinite(row[key]) for key in kind.metrics)


def unmeasured(kind: RunKind, group: Iterable[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Return {"unmeasured": seeds} of runs whose figures are not numbers; empty without any."""
    seeds = [row["seed"] for row in group if not is_measured(kind, row)]
    return {"unmeasured": seeds} if seeds else {}


def spreads(kind: RunKind, values: list[dict[str, float]]) -> dict[str, Any]:
    """Compute `mean_and_interval` of the main metric, and of others under KEY_NAME."""
    main, *others = kind.metrics
    found = mean_and_interval([value[main] for value in values])
    for key in others:
        of = mean_and_interval([value[key] for value in values])
        found |= {f"{key}_{name}": of[name] for name in ("mean", "std", "interval")}
    return found
