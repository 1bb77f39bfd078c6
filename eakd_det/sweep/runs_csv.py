"""runs.csv: the runs of a sweep, one a line, from which tables are drawn and runs are repeated."""

import csv
import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from eakd_det.utils.environment import ROOT
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_atomically

from .kinds import RunKind
from .names import tell_apart
from .rows import by_config, in_order

FIXED = ("kind", "dataset", "models", "method", "seed", "config", "options")


def write_runs(kind: RunKind, rows: Iterable[dict[str, Any]], path: str) -> None:
    """Write the runs of a sweep, with figures in percent.

    Args:
        rows: as `eakd_det.sweep.rows.collect` returns them.
    """
    figures = [*kind.metrics, f"teacher_{kind.main}"]
    with write_atomically(path) as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow([*FIXED, *figures])
        for row in rows:
            names = [kind.title, *(row[key] for key in FIXED[1:5])]
            values = [row.get(key) for key in figures]
            texts = ["" if value is None else f"{value:.4f}" for value in values]
            writer.writerow([*names, _portable(row["file"]), shlex.join(row["options"]), *texts])


def _portable(file: str) -> str:
    """Return the path of a config relative to the checkout, if it is below it."""
    path = Path(file).resolve()
    is_ours = path.is_file() and path.is_relative_to(ROOT)
    return path.relative_to(ROOT).as_posix() if is_ours else file


def find_config(file: str) -> str | None:
    """Return the path of a config of a runs.csv from the current folder; None if it is missing."""
    found = (path for path in (ROOT / file, Path(file)) if path.is_file())
    path = next(found, None)
    return None if path is None else os.path.relpath(path)


def read_runs(
    files: Sequence[str], kinds: Sequence[RunKind]
) -> tuple[RunKind, list[dict[str, Any]]]:
    """Read the runs of one kind from files that `write_runs` has written, also concatenated ones.

    Returns:
        The kind, with the metrics that all runs have; and the runs, as `collect` returns them. They
        have no folder, and "place" is the file and line of each.

    Raises:
        UserError: a file is missing or broken, the kinds differ, a run stands twice with different
            figures, or the runs of a config have different options.
    """
    lines = [line for file in files for line in _lines(file)]
    if not lines:
        raise UserError(f"{' and '.join(files)}: there is no run below the first line.")
    kind = _kind(lines, kinds)
    rows = [_row(kind, place, cells) for place, cells in lines]
    main, kind = kind.main, kind.measured(rows)
    for row in rows:
        if missing := [key for key in (main, *kind.metrics) if key not in row]:
            raise UserError(
                f"{row['place']}, column {missing[0]}: there is no figure. Delete the line, or add "
                "the figure in percent."
            )
    tell_apart(rows, "config")
    return kind, in_order(_distinct(kind, rows))


def _lines(file: str) -> list[tuple[str, dict[str, str]]]:
    """Return the place of each run, "FILE line N", and column -> text."""
    if not Path(file).is_file():
        raise UserError(f"There is no file {file!r}.")
    found, header = [], []
    try:
        with open(file, newline="", encoding="utf-8-sig") as f:
            reader = csv.reader(f)
            for cells in reader:
                place = f"{file} line {reader.line_num}"
                if not header or cells[:1] == ["kind"]:  # of the next one of concatenated files
                    header = cells
                    if missing := [name for name in FIXED if name not in header]:
                        raise UserError(
                            f"{place} lacks the columns {', '.join(missing)}: name a runs.csv of a "
                            "sweep, with commas between the columns."
                        )
                elif cells and len(cells) != len(header):
                    raise UserError(
                        f"{place} has {len(cells)} columns, but its header has {len(header)}: "
                        "delete the line, or write it anew."
                    )
                elif cells:
                    found.append((place, dict(zip(header, cells, strict=True))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} is not a CSV file in UTF-8: {error}.") from error
    return found


def _kind(lines: Iterable[tuple[str, dict[str, str]]], kinds: Sequence[RunKind]) -> RunKind:
    known = {kind.title: kind for kind in kinds}
    first: dict[str, str] = {}
    for place, cells in lines:
        if cells["kind"] not in known:
            raise UserError(
                f"{place}, column kind: {cells['kind']!r} is none of {', '.join(known)}."
            )
        first.setdefault(cells["kind"], place)
    if len(first) > 1:
        both = " and ".join(f"{title} ({place})" for title, place in first.items())
        raise UserError(f"The runs of a table must be of one kind, but there are {both}.")
    return known[next(iter(first))]


def _row(kind: RunKind, place: str, cells: dict[str, str]) -> dict[str, Any]:
    """Convert the cells of a line."""
    for name in ("dataset", "models", "method"):
        if not cells[name]:
            raise UserError(f"{place}, column {name} is empty: write the name that tables have.")
    figures = [*kind.measured([dict.fromkeys(cells)]).metrics, f"teacher_{kind.main}"]
    return {
        **{name: cells[name] for name in ("dataset", "models", "method", "config")},
        **{"file": cells["config"], "folder": "", "place": place},
        **dict.fromkeys(("fingerprint", "teacher", "teacher_weights"), ""),
        "seed": _number(int, place, "seed", cells["seed"], "a whole number"),
        "options": _options(place, cells["options"]),
        **{
            key: _number(float, place, key, cells[key], "a figure in percent")
            for key in figures
            if cells.get(key)
        },
    }


def _number(convert: type, place: str, column: str, text: str, what: str) -> Any:
    try:
        return convert(text)
    except ValueError as error:
        raise UserError(f"{place}, column {column}: {text!r} is not {what}.") from error


def _options(place: str, text: str) -> list[str]:
    try:
        options = shlex.split(text)
    except ValueError as error:
        raise UserError(f"{place}, column options: {text!r}: {error}.") from error
    if len(options) % 2:
        raise UserError(
            f"{place}, column options: {text!r} is an odd number of words; write KEY VALUE pairs, "
            "and values with spaces in quotes."
        )
    return options


def _distinct(kind: RunKind, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the runs without copies.

    Raises:
        UserError: the runs of a config have different options, or a run has different figures.
    """
    kept = []
    for (_, models, method), group in by_config(rows).items():
        seeds: dict[int, dict[str, Any]] = {}
        for row in group:
            what = f"{group[0]['place']} and {row['place']} are runs of {method}, {models}"
            if _pairs(row) != _pairs(group[0]):
                raise UserError(
                    f"{what} with different options, {shlex.join(group[0]['options'])!r} and "
                    f"{shlex.join(row['options'])!r}: give one of them another name in the column "
                    "method, or draw the tables of one of them."
                )
            same = seeds.setdefault(row["seed"], row)
            if any(same[key] != row[key] for key in kind.metrics):
                raise UserError(
                    f"{same['place']} and {row['place']} are both {method}, {models}, seed "
                    f"{row['seed']}, with different figures: delete one of them."
                )
        kept += seeds.values()
    return kept


def _pairs(row: dict[str, Any]) -> dict[str, str]:
    return dict(zip(row["options"][::2], row["options"][1::2], strict=True))
