"""Differences between the methods of a sweep, paired by seed."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eakd_det.utils.statistics import holm, paired_test

from .kinds import RunKind
from .names import CONTROLS, MODES, base_of, is_part
from .rows import Groups, by_config, spreads
from .vary import levers_of, same_lever, split_method, with_levers

logger = logging.getLogger(__name__)


def compare(
    kind: RunKind, rows: list[dict[str, Any]], pairs: Sequence[tuple[str, str]] = ()
) -> list[dict[str, Any]]:
    """Return the differences between two methods, seed by seed, for the same models.

    Args:
        rows: of `eakd_det.sweep.rows.collect`.
        pairs: (method, other method) beside EA-X and X, and EA-X and its controls EA-X-matched and
            EA-X-teacher, which are found by their names. The student alone may be one of them.
            With a lever, both methods have the same value, where the key acts on both.

    Returns:
        Entries as `eakd_det.sweep.tables.summarize` gives them, of method minus "minus", where
        "seeds" are common; with "p" and "effect" of `paired_test` for the main metric, and
        "p_holm", which is corrected for the number of entries with a "p".

    Raises:
        UserError: the runs of a config are not alike.
    """
    groups, levers = by_config(rows), levers_of(rows)
    differences = []
    for pair in dict.fromkeys([*_pairs((row["method"] for row in rows), levers), *pairs]):
        found = [
            entry
            for method, other in with_levers(pair, levers)
            for dataset, models in dict.fromkeys(key[:2] for key in groups)
            if (entry := _difference(kind, groups, dataset, models, method, other))
        ]
        if pair in pairs and not found:
            logger.warning("--pairs %s:%s: no seed is finished for both", *pair)
        differences += found
    tested = [entry for entry in differences if entry["p"] is not None]
    for entry, p in zip(tested, holm([entry["p"] for entry in tested]), strict=True):
        entry["p_holm"] = p
    _warn_of_unpaired(groups, differences, levers)
    return differences


def _difference(
    kind: RunKind, groups: Groups, dataset: str, models: str, method: str, other: str
) -> dict[str, Any] | None:
    """Return the entry of two methods on a dataset; None if they have no seed in common."""
    ours, theirs = (
        {row["seed"]: row for row in _runs_of(groups, dataset, models, name)}
        for name in (method, other)
    )
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    differ = [{key: ours[seed][key] - theirs[seed][key] for key in kind.metrics} for seed in seeds]
    entry = {"dataset": dataset, "models": models, "method": method, "minus": other}
    entry |= spreads(kind, differ)
    entry |= {**paired_test([each[kind.main] for each in differ]), "p_holm": None}
    return {**entry, "seeds": seeds}


def _pairs(methods: Iterable[str], levers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the names of the methods that are compared, if both have runs; without `levers`."""
    return [
        pair
        for method in dict.fromkeys(_split(method, levers)[0] for method in methods)
        for pair in [
            (f"EA-{method}", method),
            (f"EA-{method}-normalized", method),
            *((method, f"{method}-{mode}") for mode in MODES),
        ]
    ]


def _split(method: str, levers: Mapping[str, str]) -> tuple[str, str]:
    """Split a method as `split_method`, but not a label of a report that only looks like it."""
    name, lever = split_method(method)
    return (name, lever) if lever in levers else (method, "")


def _warn_of_unpaired(
    groups: Iterable[tuple[str, str, str]],
    differences: list[dict[str, Any]],
    levers: Mapping[str, str],
) -> None:
    """Warn of each EA-X without an X to compare it with: often its X has another name."""
    paired = {
        (entry["dataset"], entry["models"], entry[side])
        for entry in differences
        for side in ("method", "minus")
    }
    for dataset, models, method in groups:
        if method.startswith("EA-") and (dataset, models, method) not in paired:
            name, lever = _split(method, levers)
            is_control = name.endswith(tuple(f"-{mode}" for mode in CONTROLS))
            other = f"EA-{base_of(name)}" if is_control else base_of(name)
            other = same_lever(other, lever, levers[lever]) if lever else other
            logger.warning(
                "%s of %s on %s has no counterpart: no run of %s with these models and one of its "
                "seeds is finished.",
                *(method, models, dataset, other),
            )


def _runs_of(groups: Groups, dataset: str, models: str, method: str) -> list[dict[str, Any]]:
    """Return the runs of a method; those of a student alone have no teacher in "models"."""
    if (dataset, models, method) in groups or not method.startswith("Student"):
        return groups.get((dataset, models, method), [])
    for (of, student, name), group in groups.items():
        if (of, name) == (dataset, method) and is_part(student, models):
            return group
    return []
