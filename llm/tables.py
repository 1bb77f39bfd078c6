"""Table of an evaluation: a model a row, the sets and their average; published figures below."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from tabulate import tabulate

from eakd_det.sweep.names import method_of, tell_apart
from eakd_det.sweep.published import read_published

from .results import figures_of
from .runs import LanguageModels


def table(rows: Mapping[str, dict[str, Any]], metric: str = "rougeL") -> str:
    """Return a Markdown table of what `evaluate` gave.

    Args:
        rows: name of a model -> its evaluation, all on the same sets.
        metric: of llm.evaluation.METRICS. The published figures of these sets are of ROUGE-L.
    """
    sets = list(next(iter(rows.values()))["scores"])
    keys = [*(f"{metric} {name}" for name in sets), metric]
    lines = [_line(name, figures_of(result["scores"]), keys) for name, result in rows.items()]
    for entry in read_published(LanguageModels.papers):
        if entry.figures.keys() & set(keys[:-1]):
            has_average = entry.figures.keys() == set(keys)
            name = f"{entry.method}, published: {entry.source}"
            lines.append(_line(name, entry.figures, keys if has_average else keys[:-1]))
    return tabulate(lines, ["method", *sets, "average"], "github", disable_numparse=True)


def _line(name: str, figures: Mapping[str, float], keys: Sequence[str]) -> list[str]:
    return [name, *(f"{figures[key]:.2f}" if key in figures else "" for key in keys)]


def row_names(configs: Mapping[str, CfgNode]) -> dict[str, str]:
    """Return file of a config -> its method, or the file's name for one without a method.

    Files that would share a name have their path in it.
    """
    rows = []
    for file, cfg in configs.items():
        method = method_of(cfg.DISTILL, Path(file)) if cfg.DISTILL.METHODS else Path(file).stem
        rows.append({"dataset": "", "models": "", "method": method, "config": file})
    tell_apart(rows, "config")
    return {row["config"]: row["method"] for row in rows}
