"""Panels of a lever's figure, from the summary and the differences of a sweep."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .names import ALONE, base_of, is_part
from .vary import acts, same_lever, split_method

Entry = dict[str, Any]  # of `summarize` or `compare`


@dataclass
class Panel:
    """Runs of a varied key on one dataset and, unless the key changes them, of the same models.

    Attributes:
        key: the varied key.
        title: dataset and models.
        values: their names, in order.
        lines: varied method -> value -> entry.
        flat: entries of the methods on which the key does not act.
        differences: method EA-X -> value -> entry of EA-X minus X.
    """

    key: str
    title: str
    values: list[str]
    lines: dict[str, dict[str, Entry]] = field(default_factory=dict)
    flat: dict[str, Entry] = field(default_factory=dict)
    differences: dict[str, dict[str, Entry]] = field(default_factory=dict)


def lever_panels(
    summary: Sequence[Entry], differences: Sequence[Entry], levers: Mapping[str, str]
) -> list[Panel]:
    """Return the panels of each varied key, dataset and pair of models.

    Args:
        summary, differences: of `summarize` and `compare`.
        levers: of `levers_of`.
    """
    panels = []
    for key in dict.fromkeys(levers.values()):
        values = {lever: lever.partition("=")[2] for lever, of in levers.items() if of == key}
        varied = [entry for entry in summary if split_method(entry["method"])[1] in values]
        for dataset in dict.fromkeys(entry["dataset"] for entry in varied):
            entries = [entry for entry in varied if entry["dataset"] == dataset]
            for models in _groups(entries):
                title = dataset if len(models) > 1 else f"{dataset}, {models[0]}"
                panel = Panel(key, title, [])
                panel.lines = _by_value(_of(dataset, models, entries), values)
                names = {name for line in panel.lines.values() for name in line}
                panel.values = [name for name in values.values() if name in names]
                panel.flat = {
                    entry["method"]: entry
                    for entry in _of(dataset, models, summary)
                    if not split_method(entry["method"])[1] and _is_flat(entry["method"], key)
                }
                gains = [e for e in _of(dataset, models, differences) if _is_gain(e, key)]
                panel.differences = _by_value(gains, values)
                panels.append(panel)
    return panels


def _groups(entries: Sequence[Entry]) -> list[list[str]]:
    """Return the models of each of a dataset's panels: several where the key changes the models."""
    models: dict[tuple[str, str], set[str]] = {}
    for entry in entries:
        models.setdefault(split_method(entry["method"]), set()).add(entry["models"])
    of_method: dict[str, set[str]] = {}
    for (method, _), names in models.items():
        of_method.setdefault(method, set()).update(names)
    if all(len(names) == 1 for names in models.values()) and any(
        len(names) > 1 for names in of_method.values()
    ):
        return [list(dict.fromkeys(entry["models"] for entry in entries))]
    distilled = [entry for entry in entries if not entry["method"].startswith(ALONE)]
    return [[name] for name in dict.fromkeys(entry["models"] for entry in distilled or entries)]


def _of(dataset: str, models: Collection[str], entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries of a dataset and of models, with those of their student alone."""
    return [
        entry
        for entry in entries
        if entry["dataset"] == dataset
        and (
            entry["models"] in models
            or (
                entry["method"].startswith(ALONE)
                and any(is_part(entry["models"], name) for name in models)
            )
        )
    ]


def _by_value(entries: Iterable[Entry], values: Mapping[str, str]) -> dict[str, dict[str, Entry]]:
    found: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        method, lever = split_method(entry["method"])
        if lever in values:
            found.setdefault(method, {})[values[lever]] = entry
    return found


def _is_flat(method: str, key: str) -> bool:
    """Return whether a method has a level line; a teacher would stretch the axis."""
    return not acts(key, method) and not method.startswith("Teacher")


def _is_gain(entry: Entry, key: str) -> bool:
    """Return whether an entry is EA-X, with any mode, minus X at the same value."""
    (method, lever), base = split_method(entry["method"]), entry["minus"]
    return method != base_of(method) and base == same_lever(base_of(method), lever, key)
