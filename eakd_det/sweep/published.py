"""What papers report of detectors, from published.yaml."""

from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from eakd_det.config.defaults import STOCK_ARCHITECTURES

PUBLISHED = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Published:
    """What a paper reports for the pair and the method of a run.

    Attributes:
        method: as the paper's table calls it.
        figures: column -> mean, percent.
        deviations: column -> standard deviation, where it is given.
        teacher: its main figure, None if it is not given.
        source: paper and table.
    """

    method: str
    figures: dict[str, float]
    deviations: dict[str, float]
    teacher: float | None
    source: str


def method_name(distill: dict[str, Any]) -> str:
    """The name of what a node DISTILL says: "KD", "EA-DKD+LS", "EA-KD-matched"; empty for none."""
    methods = distill["METHODS"]
    if not methods:
        return ""
    name = "+".join(methods)
    if any(distill[method].get("STANDARDIZE", False) for method in methods):
        name += "+LS"
    if distill["EA"]["ENABLED"]:
        mode = distill["EA"]["MODE"]
        name = f"EA-{name}" + (f"-{mode}" if mode != "full" else "")
    return name


def published_for(config: dict[str, Any], method: str) -> Published | None:
    """What a paper reports for a run with this config.

    Args:
        config: of the run.
        method: of `method_name`.
    """
    known = yaml.safe_load(PUBLISHED.read_text())
    if not _says(config, known["recipe"]):
        return None
    for table in known["tables"]:
        for pair in table["pairs"]:
            teacher, student = pair["teacher"], pair["student"]
            if not _says(config, known["students"][student["name"]]):
                continue
            teachers = known["teachers"][teacher["name"]]
            if not method and "AP" in student:
                figures = {"AP": student["AP"]}
                return Published("not distilled", figures, {}, None, table["source"])
            if method in pair["methods"] and _says(config, teachers):
                figures = pair["methods"][method]
                return Published(method, figures, {}, teacher.get("AP"), table["source"])
    return None


def _says(config: dict[str, Any], conditions: dict[str, Any]) -> bool:
    return all(_value(config, key) == value for key, value in conditions.items())


def _value(config: dict[str, Any], key: str) -> Any:
    value = reduce(lambda node, name: node[name], key.split("."), config)
    return STOCK_ARCHITECTURES.get(value, value) if isinstance(value, str) else value
