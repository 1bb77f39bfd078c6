"""Tables of a sweep: mean and standard deviation over the seeds beside the published figures."""

import csv
import json
import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from eakd_det.config.safe_yaml import read_yaml
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import make_folder, write_atomically

from .comparison import compare
from .forest import draw_differences
from .formats import as_latex, as_markdown
from .kinds import Config, RunKind
from .rows import by_config, collect, spreads
from .runs_csv import find_config, write_runs

logger = logging.getLogger(__name__)


def summarize(kind: RunKind, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the metrics of each config over its seeds, in percent: `columns` but "minus".

    Raises:
        UserError: the runs of a config are not alike.
    """
    summary, teacher = [], f"teacher_{kind.main}"
    for (dataset, models, method), group in by_config(rows).items():
        entry = {"dataset": dataset, "models": models, "method": method}
        entry |= spreads(kind, [{key: row[key] for key in kind.metrics} for row in group])
        teachers = [row[teacher] for row in group if row.get(teacher) is not None]
        entry[teacher] = float(np.mean(teachers)) if teachers else None
        summary.append(entry | _published(kind, group[0], entry["mean"]))
    return summary


def _published(kind: RunKind, row: dict[str, Any], mean: float) -> dict[str, Any]:
    """Return the columns of the published figure for a run; empty without one."""
    config = _config(kind, row)
    figure = None if config is None else kind.published(config)
    if figure is None or kind.main not in figure.figures:
        return {}
    published = figure.figures[kind.main]
    columns = {"published_mean": published, "published_std": figure.std}
    return columns | {"difference": mean - published, "source": figure.source}


def _config(kind: RunKind, row: dict[str, Any]) -> Config | None:
    """Return the config of a run: of its folder, or for a row of runs.csv of the config file."""
    if row["folder"]:
        path = os.path.join(row["folder"], "config.yaml")
        return read_yaml(path) if os.path.exists(path) else None
    file = find_config(row["file"])
    try:
        return None if file is None else kind.load(file, row["options"])
    except UserError as error:  # it has changed since
        logger.warning("%s: no published figure is looked up: %s", row["place"], error)
        return None


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
    """Write table.md, table.csv, table.tex, results.json, runs.csv and the figure of differences.

    Args:
        rows: of `collect`, or of `read_runs`.
        pairs: of `compare`.

    Returns:
        The text of table.md.
    """
    summary, differences = summarize(kind, rows), compare(kind, rows, pairs)
    options = {f"{row['method']}/{row['models']}": row["options"] for row in rows}
    texts = {
        "table.md": as_markdown(kind, summary, differences, options),
        "table.tex": as_latex(kind, summary, differences),
        "results.json": json.dumps(
            {"runs": rows, "summary": summary, "differences": differences}, indent=2
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
    if differences:
        draw_differences(kind, differences, output_dir)
    return texts["table.md"]
