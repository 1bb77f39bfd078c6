"""Runs of several files runs.csv: which belong to one config, and which are copies."""

import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np

from eakd_det.utils.errors import UserError

from .kinds import RunKind
from .names import tell_apart
from .rows import by_config, pairs_of


def join(kind: RunKind, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the runs without copies; configs that share a name are told apart.

    A config that machines have under different paths is one, if its runs have one fingerprint.

    Args:
        rows: of the lines, with the metrics of the kind; "place" is the file and line.

    Raises:
        UserError: the runs of a config have different options or teachers, or a run has different
            figures.
    """
    first: dict[tuple[str, ...], str] = {}
    for row in rows:
        if row["fingerprint"]:
            key = tuple(row[name] for name in ("dataset", "models", "method", "fingerprint"))
            row["config"] = first.setdefault(key, row["config"])
    tell_apart(rows, "config")
    kept = []
    for (_, models, method), group in by_config(rows).items():
        seeds: dict[int, dict[str, Any]] = {}
        _check_teacher(f"teacher_{kind.main}", group)
        for row in group:
            what = f"{group[0]['place']} and {row['place']} are runs of {method}, {models}"
            is_known = row["fingerprint"] and row["fingerprint"] == group[0]["fingerprint"]
            if not is_known and pairs_of(row) != pairs_of(group[0]):
                raise UserError(
                    f"{what} with different options, {shlex.join(group[0]['options'])!r} and "
                    f"{shlex.join(row['options'])!r}: give one of them another name in the column "
                    "method, or draw the tables of one of them."
                )
            same = seeds.setdefault(row["seed"], row)
            figures = [[of[key] for key in kind.metrics] for of in (same, row)]
            if not np.array_equal(*figures, equal_nan=True):
                raise UserError(
                    f"{same['place']} and {row['place']} are both {method}, {models}, seed "
                    f"{row['seed']}, with different figures: delete one of them."
                )
        kept += seeds.values()
    return kept


def _check_teacher(key: str, rows: Sequence[dict[str, Any]]) -> None:
    """Raise UserError if the teachers of a config's runs have different figures."""
    known = [row for row in rows if not np.isnan(row.get(key, np.nan))]
    for row in known:
        if row[key] != known[0][key]:
            raise UserError(
                f"{known[0]['place']} and {row['place']} are runs of {row['method']}, "
                f"{row['models']}, whose teachers have different figures, {known[0][key]} and "
                f"{row[key]} in the column {key}: give one of them another name in the column "
                "method, or draw the tables of one of them. If it is one teacher that two machines "
                "have evaluated, write one figure."
            )
