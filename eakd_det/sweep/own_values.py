"""Runs without a lever in its figure, at the value that their config has itself."""

from collections.abc import Mapping, Sequence
from typing import Any

from .kinds import RunKind
from .rows import by_config, config_of, pairs_of
from .vary import Lever, acts, order, same_lever, split_method

Entry = dict[str, Any]  # of `summarize` or `compare`
Place = tuple[str, str, str]  # dataset, models and method

UNSET = "unset"  # an empty value, as that of TEACHER.WEIGHTS in the configs of classifiers


def with_own_values(
    kind: RunKind,
    rows: Sequence[dict[str, Any]],
    entries: tuple[Sequence[Entry], Sequence[Entry]],
    levers: Mapping[str, str],
) -> tuple[list[Entry], list[Entry], dict[str, str]]:
    """Name the runs without a lever as if the value of their config had been among the varied ones.

    They are those of a config that is varied in other runs, whose other options are the same. A
    value that was trained by itself, too, stays as it is.

    Args:
        rows: runs of the kind, of `collect`.
        entries: of `summarize`, and of `compare`.
        levers: of `levers_of`.

    Returns:
        The entries and levers with those that were added.
    """
    groups = {place: group[0] for place, group in by_config(rows).items()}
    summary, differences = (list(of) for of in entries)
    found: dict[str, str] = {}
    for key in dict.fromkeys(levers.values()):
        own = _own_levers(kind, groups, key, levers)
        found |= dict.fromkeys(own.values(), key)
        summary += [
            {**entry, "method": f"{entry['method']} {lever}"}
            for entry in summary
            if (lever := own.get(_place(entry)))
        ]
        differences += [
            {**entry, "method": f"{entry['method']} {lever}", "minus": minus}
            for entry in differences
            if (lever := own.get(_place(entry))) and not split_method(entry["minus"])[1]
            if own.get((*_place(entry)[:2], entry["minus"]), lever) == lever
            if (minus := same_lever(entry["minus"], lever, key))
        ]
    return summary, differences, dict(sorted({**levers, **found}.items(), key=_order))


def _own_levers(
    kind: RunKind, groups: Mapping[Place, dict[str, Any]], key: str, levers: Mapping[str, str]
) -> dict[Place, str]:
    """Return the lever, as "EA.TEMPERATURE=3", of each group that is a run of a varied config."""
    varied = [row for place, row in groups.items() if levers.get(split_method(place[2])[1]) == key]
    found = {}
    for place, row in groups.items():
        is_base = any(_are_alike(row, other, key) for other in varied)
        if not split_method(place[2])[1] and acts(key, place[2]) and is_base:
            config = config_of(kind, row)
            value = None if config is None else _value_of(config, key)
            if value is not None:
                (lever,) = Lever.parse([key, str(value) or UNSET], []).values
                if (*place[:2], f"{place[2]} {lever}") not in groups:
                    found[place] = lever
    return found


def _are_alike(row: Mapping[str, Any], other: Mapping[str, Any], key: str) -> bool:
    """Return whether runs of one config have the same options but for a key."""
    options, others = (
        {name: value for name, value in pairs_of(x).items() if name != key} for x in (row, other)
    )
    names = [split_method(x["method"])[0] for x in (row, other)]
    return names[0] == names[1] and row["file"] == other["file"] and options == others


def _value_of(config: Any, key: str) -> Any:
    """Return the value of a key, as "DISTILL.EA.BOUND"; None if the config has none."""
    for part in key.split("."):
        if not isinstance(config, Mapping) or part not in config:
            return None
        config = config[part]
    return config


def _place(entry: Entry) -> Place:
    return entry["dataset"], entry["models"], entry["method"]


def _order(item: tuple[str, str]) -> tuple:
    return order(item[0])
