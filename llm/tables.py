"""Tables of ROUGE-L: a method a row, the sets and their average; published figures below."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from eakd_det.utils.statistics import mean_and_interval

Runs = list[dict[str, Any]]  # what `evaluate` gave for each seed of training


def table(rows: dict[str, Runs], metric: str = "rougeL") -> str:
    """A Markdown table of what `evaluate` gave.

    Args:
        rows: name -> its runs, all with the same sets; a run's figure is the mean over its seeds of
            sampling.
        metric: of llm.evaluation.METRICS.

    Returns:
        Mean, ± sample standard deviation over several runs. Below stand the published figures of
        these sets, if there are any and the metric is ROUGE-L.
    """
    sets = _sets(rows)
    lines = []
    for name, runs in rows.items():
        lines.append([name, *(_cell(values, "std") for values in _columns(runs, sets, metric))])
    if metric == "rougeL":
        lines += _published(sets)
    return _markdown("method", sets, lines)


def differences(rows: dict[str, Runs], metric: str = "rougeL") -> str:
    """A Markdown table of EA-X minus X, paired by seed; empty without such a pair of several runs.

    Args:
        rows, metric: as those of `table`; runs of both in the order of the same seeds.

    Returns:
        Mean ± half width of its 95 % interval (Student's t).
    """
    sets = _sets(rows)
    lines = []
    for name, runs in rows.items():
        ours = rows.get(f"EA-{name}")
        if ours is None or len(runs) < 2:
            continue
        pairs = zip(_columns(ours, sets, metric), _columns(runs, sets, metric), strict=True)
        per_seed = ([a - b for a, b in zip(*pair, strict=True)] for pair in pairs)
        cells = (_cell(values, "interval", sign="+") for values in per_seed)
        lines.append([f"EA-{name} minus {name}", *cells])
    return _markdown("paired by seed", sets, lines) if lines else ""


def _sets(rows: dict[str, Runs]) -> list[str]:
    return list(next(iter(rows.values()))[0]["scores"])


def _columns(runs: Runs, sets: Sequence[str], metric: str) -> list[list[float]]:
    """The runs' figures on each set, then their averages over the sets."""
    columns = [[statistics.mean(r["scores"][s][metric]) for r in runs] for s in sets]
    return [*columns, [statistics.mean(of_run) for of_run in zip(*columns, strict=True)]]


def _cell(values: Sequence[float], deviation: str, sign: str = "") -> str:
    figures = mean_and_interval(values)
    text = f"{round(figures['mean'], 2) + 0.0:{sign}.2f}"  # + 0.0: no -0.00
    return text if figures[deviation] is None else f"{text} ± {figures[deviation]:.2f}"


def _markdown(title: str, sets: Sequence[str], lines: list[list[str]]) -> str:
    return tabulate(lines, [title, *sets, "average"], "github", disable_numparse=True)


def _published(sets: Sequence[str]) -> list[list[str]]:
    lines = []
    for paper in yaml.safe_load(Path(__file__).with_name("published.yaml").read_text()):
        if not set(sets) & set(paper["sets"]):
            continue
        has_average = set(sets) == set(paper["sets"])
        for method, figures in paper["methods"].items():
            of_set = dict(zip(paper["sets"], figures["sets"], strict=True))
            cells = [f"{of_set[s]:.2f}" if s in of_set else "" for s in sets]
            average = f"{figures['average']:.2f}" if has_average else ""
            lines.append([f"{method}, published: {paper['source']}", *cells, average])
    return lines
