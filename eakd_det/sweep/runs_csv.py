"""runs.csv: the runs of a sweep, one a line, from which tables are drawn and runs are repeated."""

import csv
import logging
import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eakd_det.utils.environment import ROOT
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_atomically

from .joining import join
from .kinds import RunKind
from .rows import in_order

NEEDED = ("kind", "dataset", "models", "method", "seed", "config", "options")
FIXED = (*NEEDED, "fingerprint")  # files of earlier versions have none
DIGITS = 12  # of a fingerprint

logger = logging.getLogger(__name__)


def write_runs(kind: RunKind, rows: Sequence[dict[str, Any]], path: str) -> None:
    """Write the runs of a sweep, with the figures that any of them has, in percent.

    The number of runs that are in an earlier file alone, and are lost, is logged.

    Args:
        rows: as `eakd_det.sweep.rows.collect` returns them.
    """
    metrics = dict.fromkeys(key for row in rows for key in kind.measured([row]).metrics)
    figures = [*metrics, f"teacher_{kind.main}"]
    if dropped := _names_in(path) - {_name(row) for row in rows}:
        logger.warning(
            "%s: it had %d other runs, which are not among those of these tables",
            path,
            len(dropped),
        )
    with write_atomically(path) as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow([*FIXED, *figures])
        for row in rows:
            config = _portable(row["file"]) if row["folder"] else row["file"]
            origin = [config, shlex.join(row["options"]), row["fingerprint"][:DIGITS]]
            values = [row.get(key) for key in figures]
            texts = ["" if value is None else f"{value:.4f}" for value in values]
            writer.writerow([kind.title, *_name(row), *origin, *texts])


def _name(cells: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(cells.get(key)) for key in ("dataset", "models", "method", "seed"))


def _names_in(path: str) -> set[tuple[str, ...]]:
    """Return the names of the runs in an earlier file, if there is one."""
    if not os.path.isfile(path):
        return set()
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as f:
        return {_name(cells) for cells in csv.DictReader(f)}


def _portable(file: str) -> str:
    """Return the path of a config relative to the checkout if it is below it, else absolute."""
    path = Path(file).resolve()
    if not path.is_file():
        return file
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else os.path.abspath(file)


def check_output_dir(output_dir: str, files: Sequence[str]) -> None:
    """Raise UserError if the tables of some files would replace one of them, or a sweep's."""
    folder = Path(output_dir).resolve()
    if inside := [file for file in files if Path(file).resolve().parent == folder]:
        raise UserError(
            f"{inside[0]} lies in the output folder, where runs.csv and the tables are written: "
            "name another --output-dir."
        )
    if any(folder.glob("*/*/seed*/sweep.json")):
        raise UserError(
            f"{output_dir} holds the runs of a sweep, whose runs.csv and tables would be replaced: "
            "name another --output-dir."
        )


def read_runs(
    files: Sequence[str], kinds: Sequence[RunKind]
) -> tuple[RunKind, list[dict[str, Any]]]:
    """Read the runs of one kind from files that `write_runs` has written, also concatenated ones.

    Returns:
        The kind, with the metrics that all runs have; and the runs, as `collect` returns them. They
        have no folder, and "place" is the file and line of each.

    Raises:
        UserError: a file is missing or broken, the kinds differ, a run stands twice with different
            figures, or the runs of a config have different options or teachers.
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
    return kind, in_order(join(kind, rows))


def _lines(file: str) -> list[tuple[str, dict[str, str]]]:
    """Return the place of each run, "FILE line N", and column -> text."""
    found, header = [], []
    try:
        with open(file, newline="", encoding="utf-8-sig") as f:
            reader = csv.reader(f)
            for cells in reader:
                place = f"{file} line {reader.line_num}"
                if not header or cells[:1] == ["kind"]:  # of the next one of concatenated files
                    header = cells
                    if missing := [name for name in NEEDED if name not in header]:
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
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error
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
        **{"fingerprint": cells.get("fingerprint", "")[:DIGITS]},
        **{"teacher": "", "teacher_weights": ""},
        "seed": _number(int, place, "seed", cells["seed"], "a whole number"),
        "options": _options(place, cells["options"]),
        **{
            key: _number(_figure, place, key, cells[key], "a figure in percent")
            for key in figures
            if cells.get(key)
        },
    }


def _figure(text: str) -> float:
    """Convert to a number, or NaN; raise ValueError for infinity."""
    value = float(text)
    if np.isinf(value):
        raise ValueError(text)
    return value


def _number(convert: Callable[[str], Any], place: str, column: str, text: str, what: str) -> Any:
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
