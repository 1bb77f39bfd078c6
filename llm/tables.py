"""Tables of ROUGE-L: a method a row, the sets and their average; published figures below."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate


def table(rows: dict[str, list[dict[str, Any]]], metric: str = "rougeL") -> str:
    """A Markdown table of what `evaluate` gave.

    Args:
        rows: name -> its runs, all with the same sets; a run's figure is the mean over its seeds of
            sampling.
        metric: of llm.evaluation.METRICS.

    Returns:
        Mean, ± sample standard deviation over several runs. Below stand the published figures of
        these sets, if there are any and the metric is ROUGE-L.
    """
    sets = list(next(iter(rows.values()))[0]["scores"])
    lines = []
    for name, runs in rows.items():
        columns = [[statistics.mean(r["scores"][s][metric]) for r in runs] for s in sets]
        columns.append([statistics.mean(of_run) for of_run in zip(*columns, strict=True)])
        lines.append([name, *map(_spread, columns)])
    if metric == "rougeL":
        lines += _published(sets)
    return tabulate(lines, ["method", *sets, "average"], "github", disable_numparse=True)


def _spread(values: Sequence[float]) -> str:
    text = f"{statistics.mean(values):.2f}"
    return text if len(values) < 2 else f"{text} ± {statistics.stdev(values):.2f}"


def _published(sets: Sequence[str]) -> list[list[str]]:
    lines = []
    for paper in yaml.safe_load(Path(__file__).with_name("published.yaml").read_text()):
        if not set(sets) & set(paper["sets"]):
            continue
        for method, figures in paper["methods"].items():
            of_set = dict(zip(paper["sets"], figures, strict=True))
            cells = [f"{of_set[s]:.2f}" if s in of_set else "" for s in sets]
            average = f"{statistics.mean(figures):.2f}" if set(sets) == set(of_set) else ""
            lines.append([f"{method}, published: {paper['source']}", *cells, average])
    return lines
