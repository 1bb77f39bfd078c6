"""Runs without a lever in its figure, at the value that their config has itself."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from .kinds import RunKind
from .levers import Entry
from .rows import Groups, by_config, config_of, pairs_of
from .vary import acts, lever_of, same_lever, shortest, sort_levers, split_method

logger = logging.getLogger(__name__)

Place = tuple[str, str, str]  # dataset, models and method


def with_own_values(
    kind: RunKind,
    rows: Sequence[dict[str, Any]],
    summary: Sequence[Entry],
    differences: Sequence[Entry],
    levers: Mapping[str, str],
) -> tuple[list[Entry], list[Entry], dict[str, str]]:
    """Add the entries of runs without a lever at the value that their config has.

    They are runs of a config that is varied in other runs, whose other options are the same; runs
    that differ in more are logged. A value that has runs of its own is not added, nor is 0, which
    stands for a default in many keys.

    Args:
        rows: runs of the kind, of `collect`.
        summary, differences: of `summarize` and `compare`.
        levers: of `levers_of`.

    Returns:
        The summary, differences and levers with those that were added.
    """
    groups = by_config(rows)
    summary, differences, found = [*summary], [*differences], dict(levers)
    for key in dict.fromkeys(levers.values()):
        own = _own_levers(kind, groups, key, levers)
        found |= dict.fromkeys(own.values(), key)
        for entry in [*summary]:
            if lever := own.get(_place(entry, "method")):
                summary.append({**entry, "method": f"{entry['method']} {lever}"})
        for entry in [*differences]:
            lever, minus = own.get(_place(entry, "method")), entry["minus"]
            is_same = not acts(key, minus) or own.get(_place(entry, "minus")) == lever
            if lever and is_same and not split_method(minus)[1]:
                names = {
                    "method": f"{entry['method']} {lever}",
                    "minus": same_lever(minus, lever, key),
                }
                differences.append({**entry, **names})
    return summary, differences, sort_levers(found)


def _own_levers(
    kind: RunKind, groups: Groups, key: str, levers: Mapping[str, str]
) -> dict[Place, str]:
    """Return the lever, as "EA.TEMPERATURE=3", of each group that is a run of a varied config."""
    varied = [
        group[0]
        for (_, _, method), group in groups.items()
        if levers.get(split_method(method)[1]) == key
    ]
    others = list(dict.fromkeys(shortest(pairs_of(row)[key]) for row in varied))
    found = {}
    for place, (row, *_) in groups.items():
        if split_method(place[2])[1] or not acts(key, place[2]):
            continue
        if not (alike := _alike(place, row, varied, key)):
            continue
        config = config_of(kind, row)
        value = None if config is None else _value_of(config, key)
        if value is None or (value == 0 and not isinstance(value, bool)):
            continue
        name = shortest(str(value))
        if all(shortest(pairs_of(other)[key]) != name for other in alike):
            found[place] = lever_of(key, name, others)
    return found


def _alike(
    place: Place, row: Mapping[str, Any], varied: Sequence[dict[str, Any]], key: str
) -> list[dict[str, Any]]:
    """Return the varied runs that differ from a run in the key alone; log why if there are none."""
    of_config = [other for other in varied if _are_of_one_config(row, other, key)]
    unlike = [_unlike(row, other, key) for other in of_config]
    alike = [other for other, names in zip(of_config, unlike, strict=True) if not names]
    if of_config and not alike:
        dataset, models, method = place
        logger.warning(
            "lever.png leaves out %s, %s on %s, at its own value of %s: its runs and the varied "
            "ones differ in %s.",
            *(method, models, dataset, key, ", ".join(min(unlike, key=len))),
        )
    return alike


def _are_of_one_config(row: Mapping[str, Any], other: Mapping[str, Any], key: str) -> bool:
    """Return whether a run has the config and method that another one varies by a key."""
    if key not in pairs_of(other) or row["method"] != split_method(other["method"])[0]:
        return False
    if row["dataset"] != other["dataset"] and not key.startswith("DATASET"):
        return False
    return os.path.normpath(row["file"]) == os.path.normpath(other["file"])


def _unlike(row: Mapping[str, Any], other: Mapping[str, Any], key: str) -> list[str]:
    """Name in what two runs of one config differ beside a key."""
    first, second = (_options(x, key) for x in (row, other))
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    teachers = {x.get("teacher_weights", "") for x in (row, other)} - {""}
    is_other = len(teachers) > 1 and not key.startswith("TEACHER.")
    return [*names, "their teacher's weights"] if is_other else names


def _options(row: Mapping[str, Any], key: str) -> dict[str, str]:
    """Return the options of a run without a key and the folder of its teacher, which follows it."""
    pairs = pairs_of(row).items()
    return {name: shortest(x) for name, x in pairs if name not in (key, "TEACHER.OUTPUT_DIR")}


def _value_of(config: Any, key: str) -> Any:
    """Return the value of a key, as "DISTILL.EA.BOUND"; None if the config has none."""
    for part in key.split("."):
        if not isinstance(config, Mapping) or part not in config:
            return None
        config = config[part]
    return config


def _place(entry: Entry, side: str) -> Place:
    return entry["dataset"], entry["models"], entry[side]
