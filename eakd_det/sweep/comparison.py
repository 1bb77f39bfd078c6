"""Differences between the methods of a sweep, paired by seed."""

import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from eakd_det.utils.statistics import holm, paired_test

from .kinds import RunKind
from .names import ALONE, CONTROLS, MODES, base_of, is_part
from .rows import Groups, by_config, is_measured, pairs_of, spreads
from .vary import acts, levers_of, same_lever, split_method, with_levers

logger = logging.getLogger(__name__)


def compare(
    kind: RunKind, rows: list[dict[str, Any]], pairs: Sequence[tuple[str, str]] = ()
) -> list[dict[str, Any]]:
    """Return the differences between two methods, seed by seed, for the same models.

    Args:
        rows: of `eakd_det.sweep.rows.collect`.
        pairs: (method, other method) beside EA-X and X, and EA-X and its controls EA-X-matched and
            EA-X-teacher, which are found by their names, or as values of DISTILL.EA.MODE. The
            student alone may be one of them.
            With a lever, both methods have the same value, where the key acts on both.

    Returns:
        Entries as `eakd_det.sweep.tables.summarize` gives them, of method minus "minus", where
        "seeds" are common; with "p" and "effect" of `paired_test` for the main metric, and
        "p_holm", which is corrected for the number of entries with a "p"; and with "caveats" if
        the runs differ in more than their method and lever. Two methods are compared once.

    Raises:
        UserError: the runs of a config are not alike.
    """
    groups, levers = by_config(rows), levers_of(rows)
    entries: dict[tuple, dict[str, Any]] = {}
    for pair in dict.fromkeys([*_pairs((row["method"] for row in rows), levers), *pairs]):
        found = [
            entry
            for methods in with_levers(pair, levers)
            for place in dict.fromkeys(key[:2] for key in groups)
            if (entry := _difference(kind, groups, levers, place, methods))
        ]
        if pair in pairs and not found:
            logger.warning(
                "--pairs %s:%s: no seed is finished for both with the same models", *pair
            )
        for entry in found:
            methods = frozenset((entry["method"], entry["minus"]))
            entries.setdefault((entry["dataset"], entry["models"], methods), entry)
    differences = [*entries.values()]
    tested = [entry for entry in differences if entry["p"] is not None]
    for entry, p in zip(tested, holm([entry["p"] for entry in tested]), strict=True):
        entry["p_holm"] = p
    for entry in differences:
        for caveat in entry.get("caveats", []):
            logger.warning(caveat)
    _warn_of_unpaired(groups, differences, levers)
    return differences


def _difference(
    kind: RunKind,
    groups: Groups,
    levers: Mapping[str, str],
    place: tuple[str, str],
    methods: tuple[str, str],
) -> dict[str, Any] | None:
    """Return the entry of two methods; None if they have no seed in common.

    Args:
        levers: of `levers_of`.
        place: dataset and models.
    """
    ours, theirs = (
        {row["seed"]: row for row in _runs_of(groups, *place, name) if is_measured(kind, row)}
        for name in methods
    )
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    differ = [{key: ours[seed][key] - theirs[seed][key] for key in kind.metrics} for seed in seeds]
    entry = dict(zip(("dataset", "models", "method", "minus"), (*place, *methods), strict=True))
    entry |= spreads(kind, differ)
    entry |= {**paired_test([each[kind.main] for each in differ]), "p_holm": None}
    unlike = dict.fromkeys(
        text for seed in seeds for text in _unlike(kind, levers, ours[seed], theirs[seed])
    )
    title = f"{methods[0]} minus {methods[1]}, {place[1]} on {place[0]}"
    caveats = {"caveats": [f"{title}: {text}." for text in unlike]} if unlike else {}
    return {**entry, "seeds": seeds, **caveats}


def _unlike(
    kind: RunKind, levers: Mapping[str, str], ours: dict[str, Any], theirs: dict[str, Any]
) -> list[str]:
    """Describe in what two runs differ beside their methods and levers."""
    (method, lever), (other, other_lever) = (
        _split(row["method"], levers) for row in (ours, theirs)
    )
    varied = [levers[name] for name in (lever, other_lever) if name]
    first, second = pairs_of(ours), pairs_of(theirs)
    options = [
        f"{key} {first.get(key, 'unset')} and {second.get(key, 'unset')}"
        for key in {**first, **second}
        if first.get(key) != second.get(key)
        and key not in (*varied, "TEACHER.OUTPUT_DIR")
        and acts(key, method)
        and acts(key, other)
    ]
    found = [f"the runs have different options, {', '.join(options)}"] if options else []
    is_chosen = lever != other_lever and any(key.startswith("TEACHER.") for key in varied)
    is_alone = method.startswith(ALONE) or other.startswith(ALONE)
    if not is_chosen and not is_alone and _have_other_teachers(kind, ours, theirs):
        found.append("the students have learned from different teachers")
    return found


def _have_other_teachers(kind: RunKind, ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Return whether the teachers' weights differ or, where these are not noted, their figures."""
    for key in ("teacher_weights", f"teacher_{kind.main}"):
        teachers = [row.get(key) for row in (ours, theirs)]
        if all(teachers):
            return teachers[0] != teachers[1]
    return False


def _pairs(methods: Iterable[str], levers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the names of the methods that are compared, if both have runs; without `levers`."""
    names = dict.fromkeys(methods)
    return [
        pair
        for method in dict.fromkeys(_split(name, levers)[0] for name in names)
        for pair in [
            (f"EA-{method}", method),
            (f"EA-{method}-normalized", method),
            *((method, f"{method}-{mode}") for mode in MODES),
            *_varied_modes(method, names),
        ]
    ]


def _varied_modes(method: str, names: Container[str]) -> list[tuple[str, str]]:
    """Return the pairs of EA-X and its modes as values of DISTILL.EA.MODE."""
    varied = f"{method} EA.MODE=full"
    full = varied if varied in names else method
    return [(full, f"{method} EA.MODE={mode}") for mode in MODES]


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
