"""Tables of a sweep: mean and standard deviation over the seeds beside the published figures."""

import csv
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from eakd_det.config.safe_yaml import read_yaml
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_atomically

from .comparison import compare
from .formats import as_latex, as_markdown
from .kinds import RunKind
from .lever_figure import write_levers
from .rows import by_config, collect, spreads
from .vary import split_method


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
        is_varied = split_method(method)[1]  # no paper's recipe
        found = {} if is_varied else _published(kind, group[0]["folder"], entry["mean"])
        summary.append(entry | found)
    return summary


def _published(kind: RunKind, folder: str, mean: float) -> dict[str, Any]:
    """Return the columns of the published figure for a run; empty without one."""
    path = os.path.join(folder, "config.yaml")
    figure = kind.published(read_yaml(path)) if os.path.exists(path) else None
    if figure is None or kind.main not in figure.figures:
        return {}
    published = figure.figures[kind.main]
    columns = {"published_mean": published, "published_std": figure.std}
    return columns | {"difference": mean - published, "source": figure.source}


def columns(kind: RunKind) -> list[str]:
    """Return the columns of table.csv."""
    others = [f"{k}_{name}" for k in [*kind.metrics][1:] for name in ("mean", "std", "interval")]
    return [
        *("dataset", "models", "method", "minus", "runs", "mean", "std", "interval", *others),
        *(f"teacher_{kind.main}", "published_mean", "published_std", "difference", "source"),
        *("p", "p_holm", "effect"),
    ]


def write_tables(kind: RunKind, output_dir: str, pairs: Sequence[tuple[str, str]] = ()) -> str:
    """Write table.md, table.csv, table.tex and results.json of the finished runs.

    If a key is varied, its figure is written, too.

    Returns:
        The text of table.md.

    Raises:
        UserError: there is no finished run, or the runs of a config are not alike.
    """
    rows = collect(kind, output_dir)
    if not rows:
        raise UserError(f"{output_dir} holds no finished run.")
    kind = kind.measured(rows)
    summary, differences = summarize(kind, rows), compare(kind, rows, pairs)
    options = {f"{row['method']}/{row['models']}": row["options"] for row in rows}
    texts = {
        "table.md": as_markdown(kind, summary, differences, options),
        "table.tex": as_latex(kind, summary, differences),
        "results.json": json.dumps(
            {"runs": rows, "summary": summary, "differences": differences}, indent=2
        ),
    }
    for name, text in texts.items():
        with write_atomically(os.path.join(output_dir, name)) as f:
            f.write(text)
    with write_atomically(os.path.join(output_dir, "table.csv")) as f:
        writer = csv.DictWriter(f, columns(kind), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(summary + differences)
    write_levers(kind, rows, summary, differences, output_dir)
    return texts["table.md"]
