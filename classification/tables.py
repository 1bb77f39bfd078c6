"""Tables of a sweep: mean and standard deviation over the seeds beside the published figures."""

import csv
import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from eakd_det.checkpoint import write_atomically
from eakd_det.errors import UserError
from eakd_det.spread import spread

from .formats import as_latex, as_markdown

logger = logging.getLogger(__name__)

COLUMNS = (
    *("dataset", "models", "method", "minus", "runs", "mean", "std", "interval"),
    *("teacher_top1", "published_mean", "published_std", "difference", "source"),
)  # of table.csv


def published() -> dict[tuple[str, str, str], dict[str, Any]]:
    """Figures of papers: (dataset, method in lower case, models) -> mean, std, runs and source.

    Models are "<teacher>_<student>"; the student and the teacher alone, methods "student" and
    "teacher", are also found by their own name. What a paper does not give is None.
    """
    figures = {}
    for table in yaml.safe_load(Path(__file__).with_name("published.yaml").read_text()):
        dataset, source = table["dataset"], table["source"]
        for pair in table["pairs"]:
            models = f"{pair['teacher']['name']}_{pair['student']['name']}"
            for method, figure in pair["methods"].items():
                runs = table["runs"] if "std" in figure else None
                figure = {"std": None, "runs": runs, "source": source, **figure}
                figures[dataset, method.lower(), models] = figure
            for method in ("teacher", "student"):
                if "top1" in pair[method]:
                    figure = {"mean": pair[method]["top1"], "std": None, "runs": None}
                    for name in (models, pair[method]["name"]):
                        figures[dataset, method, name] = {**figure, "source": source}
    return figures


def collect(output_dir: str) -> list[dict[str, Any]]:
    """The finished runs of a sweep, one dict each, by config and seed.

    Returns:
        "method" and "models", the parts of the config's path; what sweep.json says ("dataset",
        "seed", "options", "fingerprint"), and what result.json does ("top1" ...).
    """
    rows = []
    for path in Path(output_dir).glob("*/*/seed*/sweep.json"):
        result = path.with_name("result.json")
        if not result.exists():
            continue
        record, (method, models) = json.loads(path.read_text()), path.parts[-4:-2]
        kept = {key: record[key] for key in ("dataset", "seed", "options", "fingerprint")}
        rows.append({"method": method, "models": models, **kept, **json.loads(result.read_text())})
    return sorted(rows, key=lambda row: (*_order(row), row["seed"]))


def _order(row: dict[str, Any]) -> tuple:
    """The sets and models in turn; there the student alone first, EA-X after X."""
    method = row["method"]
    base = method.removeprefix("EA-")
    alone = ["Teacher", "Student"].index(base) if base in ("Teacher", "Student") else 2
    return row["dataset"], row["models"], alone, base, method != base


def _by_config(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    """(dataset, models, method) -> its runs.

    Raises:
        UserError: they are not of one config and one set of options.
    """
    groups = {}
    for row in rows:
        groups.setdefault((row["dataset"], row["models"], row["method"]), []).append(row)
    for (_, models, method), group in groups.items():
        if len({row["fingerprint"] for row in group}) > 1:
            seeds = " and ".join(f"{row['seed']} ({row['fingerprint'][:6]})" for row in group)
            raise UserError(
                f"The runs of {method}/{models} were made with different configs or options: "
                f"seeds {seeds}. Sweep over all of them again, or delete those that are outdated."
            )
    return groups


def summarize(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Top-1 of each config over its seeds: COLUMNS but "minus", in percent.

    Raises:
        UserError: the runs of a config are not alike.
    """
    figures, summary = published(), []
    for (dataset, models, method), group in _by_config(rows).items():
        entry = {"dataset": dataset, "models": models, "method": method}
        entry |= spread([row["top1"] for row in group])
        teachers = [row["teacher_top1"] for row in group if row["teacher_top1"] is not None]
        entry["teacher_top1"] = float(np.mean(teachers)) if teachers else None
        figure = figures.get((dataset, method.lower(), models))
        if figure is not None:
            entry |= {"published_mean": figure["mean"], "published_std": figure["std"]}
            entry |= {"difference": entry["mean"] - figure["mean"], "source": figure["source"]}
        summary.append(entry)
    return summary


def compare(
    rows: list[dict[str, Any]], pairs: Sequence[tuple[str, str]] = ()
) -> list[dict[str, Any]]:
    """Differences in top-1 between two methods, seed by seed, for the same models.

    Args:
        rows: of `collect`.
        pairs: (method, other method) beside EA-X and X, which are found by their names.

    Returns:
        Entries as `summarize` gives them, of method minus "minus", where seeds are common.

    Raises:
        UserError: the runs of a config are not alike.
    """
    groups = _by_config(rows)
    methods = dict.fromkeys(row["method"] for row in rows)
    found = [(f"EA-{method}", method) for method in methods]
    differences = []
    for method, other in dict.fromkeys([*found, *pairs]):
        found_seeds = False
        for dataset, models in dict.fromkeys(key[:2] for key in groups):
            ours, theirs = (
                {row["seed"]: row["top1"] for row in groups.get((dataset, models, name), [])}
                for name in (method, other)
            )
            seeds = sorted(ours.keys() & theirs.keys())
            if seeds:
                found_seeds = True
                entry = {"dataset": dataset, "models": models, "method": method, "minus": other}
                entry |= spread([ours[seed] - theirs[seed] for seed in seeds])
                differences.append({**entry, "seeds": seeds})
        if (method, other) in pairs and not found_seeds:
            logger.warning("--pairs %s:%s: no models have finished seeds of both", method, other)
    return differences


def write_tables(output_dir: str, pairs: Sequence[tuple[str, str]] = ()) -> str:
    """Write table.md, table.csv, table.tex and results.json of the finished runs.

    Returns:
        The text of table.md.

    Raises:
        UserError: there is no finished run, or the runs of a config are not alike.
    """
    rows = collect(output_dir)
    if not rows:
        raise UserError(f"{output_dir} holds no finished run.")
    summary, differences = summarize(rows), compare(rows, pairs)
    options = {f"{row['method']}/{row['models']}": row["options"] for row in rows}
    texts = {
        "table.md": as_markdown(summary, differences, options),
        "table.tex": as_latex(summary, differences),
        "results.json": json.dumps(
            {"runs": rows, "summary": summary, "differences": differences}, indent=2
        ),
    }
    for name, text in texts.items():
        with write_atomically(os.path.join(output_dir, name)) as f:
            f.write(text)
    with write_atomically(os.path.join(output_dir, "table.csv")) as f:
        writer = csv.DictWriter(f, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(summary + differences)
    return texts["table.md"]
