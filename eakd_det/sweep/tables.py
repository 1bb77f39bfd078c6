"""Tables of a sweep: mean and standard deviation over the seeds beside the published figures."""

import csv
import json
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eakd_det.utils.errors import UserError
from eakd_det.utils.files import make_folder, write_atomically

from .comparison import compare
from .forest import draw_differences
from .formats import as_latex, as_markdown
from .kinds import RunKind
from .lever_figure import write_levers
from .rows import by_config, collect, config_of, is_measured, spreads, unmeasured
from .runs_csv import write_runs
from .vary import split_method

logger = logging.getLogger(__name__)

FIGURES = [
    f"{name}.{ending}" for name in ("differences", "lever") for ending in ("png", "svg", "json")
]


def summarize(kind: RunKind, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the metrics of each config over its seeds, in percent: `columns` but "minus".

    Runs whose figures are not numbers do not count; "unmeasured" are their seeds, if there are any.

    Raises:
        UserError: the runs of a config are not alike.
    """
    summary, teacher = [], f"teacher_{kind.main}"
    for (dataset, models, method), group in by_config(rows).items():
        entry = {"dataset": dataset, "models": models, "method": method, **unmeasured(kind, group)}
        counted = [row for row in group if is_measured(kind, row)]
        entry |= spreads(kind, [{key: row[key] for key in kind.metrics} for row in counted])
        figures = [row[teacher] for row in group if row.get(teacher) is not None]
        teachers = [figure for figure in figures if math.isfinite(figure)]
        entry[teacher] = float(np.mean(teachers)) if teachers else None
        is_varied = split_method(method)[1]  # no paper's recipe
        found = {} if is_varied else _published(kind, group[0], entry["mean"])
        summary.append(entry | found)
    return summary


def _published(kind: RunKind, row: dict[str, Any], mean: float | None) -> dict[str, Any]:
    """Return the columns of the published figure for a run; empty without one."""
    config = config_of(kind, row)
    figure = None if config is None else kind.published(config)
    if figure is None or kind.main not in figure.figures:
        return {}
    published = figure.figures[kind.main]
    columns = {"published_mean": published, "published_std": figure.std}
    difference = None if mean is None else mean - published
    return columns | {"difference": difference, "source": figure.source}


def columns(kind: RunKind) -> list[str]:
    """Return the columns of table.csv."""
    others = [f"{k}_{name}" for k in [*kind.metrics][1:] for name in ("mean", "std", "interval")]
    return [
        *("dataset", "models", "method", "minus", "runs", "mean", "std", "interval", *others),
        *(f"teacher_{kind.main}", "published_mean", "published_std", "difference", "source"),
        *("p", "p_holm", "effect"),
    ]


def write_tables(kind: RunKind, output_dir: str, pairs: Sequence[tuple[str, str]] = ()) -> str:
    """Write the files of `write_rows` for the finished runs of a sweep.

    Returns:
        The text of table.md.

    Raises:
        UserError: there is no finished run, or the runs of a config are not alike.
    """
    rows = collect(kind, output_dir)
    if not rows:
        raise UserError(f"{output_dir} holds no finished run.")
    return write_rows(kind.measured(rows), rows, output_dir, pairs)


def write_rows(
    kind: RunKind,
    rows: list[dict[str, Any]],
    output_dir: str,
    pairs: Sequence[tuple[str, str]] = (),
) -> str:
    """Write table.md, table.csv, table.tex, results.json, runs.csv and the figures.

    They are those of the differences, and of a varied key, if there are any.

    Args:
        rows: of `collect`, or of `read_runs`.
        pairs: of `compare`.

    Returns:
        The text of table.md.
    """
    summary, differences = summarize(kind, rows), compare(kind, rows, pairs)
    several = len({row["dataset"] for row in rows}) > 1
    options = {
        "/".join([*[row["dataset"]] * several, row["method"], row["models"]]): row["options"]
        for row in rows
    }
    texts = {
        "table.md": as_markdown(kind, summary, differences, options),
        "table.tex": as_latex(kind, summary, differences),
        "results.json": json.dumps(
            {"runs": _valid(rows), "summary": summary, "differences": differences},
            **{"indent": 2, "allow_nan": False},
        ),
    }
    make_folder(output_dir)
    for name, text in texts.items():
        with write_atomically(os.path.join(output_dir, name)) as f:
            f.write(text)
    with write_atomically(os.path.join(output_dir, "table.csv")) as f:
        writer = csv.DictWriter(f, columns(kind), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(summary + differences)
    write_runs(kind, rows, os.path.join(output_dir, "runs.csv"))
    for name in FIGURES:
        Path(output_dir, name).unlink(missing_ok=True)  # of a call before, with other runs
    if differences:
        draw_differences(kind, differences, output_dir)
    measured = [entry for entry in summary if entry["mean"] is not None]
    write_levers(kind, rows, measured, differences, output_dir)
    return texts["table.md"]


def _valid(value: Any) -> Any:
    """Replace floats that JSON cannot hold by None."""
    if isinstance(value, dict):
        return {key: _valid(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_valid(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
