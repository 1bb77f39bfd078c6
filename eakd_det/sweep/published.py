"""Figures that papers report, from the published.yaml of a family of runs.

The file is a list of tables:

    - source: paper and table
      runs: seeds over which standard deviations are given, if any are
      recipe: KEY of a config -> the value that it must have
      pairs:
        - teacher: {name: NETWORK, METRIC: figure}
          student: {name: NETWORK, METRIC: figure}
          methods:
            METHOD: {METRIC: mean, METRIC: mean, std: deviation of the first one}

NETWORK is a name of `RunKind.networks`, METRIC a key of result.json with a figure in percent, the
main one first; those of a teacher or student alone may be left out.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eakd_det.config.defaults import STOCK_ARCHITECTURES


@dataclass(frozen=True)
class Published:
    """Figures of a paper for one method and one pair of networks.

    Attributes:
        recipe: KEY of a config -> the value that it must have, if it has the key: configs of
            earlier runs lack later ones.
        networks: names of teacher and student; of a network alone the first is empty.
        method: as the paper's table calls it; empty for a network alone.
        figures: metric -> mean, percent.
        std: standard deviation of the first metric, if it is given.
        runs: number of runs that `std` is over.
        teacher: the teacher's main figure, if it is given.
        source: paper and table.
    """

    recipe: Mapping[str, Any]
    networks: tuple[str, str]
    method: str
    figures: dict[str, float]
    std: float | None
    runs: int | None
    teacher: float | None
    source: str


@functools.cache
def read_published(path: Path) -> tuple[Published, ...]:
    """Read the figures of a published.yaml; those of networks alone come first in each pair."""
    found = []
    for table in yaml.safe_load(path.read_text()):
        recipe, source = table.get("recipe", {}), table["source"]
        for pair in table["pairs"]:
            student, teacher = (dict(pair[side]) for side in ("student", "teacher"))
            networks = teacher.pop("name"), student.pop("name")
            for name, figures in ((networks[1], student), (networks[0], teacher)):
                if figures:
                    alone = Published(recipe, ("", name), "", figures, None, None, None, source)
                    found.append(alone)
            known = next(iter(teacher.values()), None)
            for method, figures in pair["methods"].items():
                means = {key: value for key, value in figures.items() if key != "std"}
                std = figures.get("std")
                runs = None if std is None else table["runs"]
                found.append(Published(recipe, networks, method, means, std, runs, known, source))
    return tuple(found)


def find_published(
    path: Path, config: Mapping[str, Any], networks: tuple[str, str], method: str
) -> Published | None:
    """Find the figures for a config.

    Args:
        path: of a published.yaml.
        networks: names of teacher and student, as of `Published`.
        method: of `method_name`; case does not count.
    """
    for entry in read_published(path):
        is_same = entry.networks == networks and entry.method.lower() == method.lower()
        if is_same and all(_value(config, k, value) == value for k, value in entry.recipe.items()):
            return entry
    return None


def _value(config: Mapping[str, Any], key: str, default: Any) -> Any:
    """Value of a dotted key; the stock meta-architecture for the distilled form of it."""
    *nodes, leaf = key.split(".")
    value = functools.reduce(lambda node, name: node[name], nodes, config).get(leaf, default)
    if isinstance(value, tuple):
        return list(value)
    return STOCK_ARCHITECTURES.get(value, value) if isinstance(value, str) else value
