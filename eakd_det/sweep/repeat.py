"""Repetition of the runs of a runs.csv: their config and options, and a table of both figures."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from eakd_det.utils.environment import ROOT
from eakd_det.utils.errors import UserError

from .formats import DASH
from .kinds import RunKind
from .rows import by_config, find_config
from .run import Run
from .runs_csv import DIGITS
from .vary import split_method

EXACT = 0.5e-4  # half of the last decimal in a runs.csv


def select_rows(
    rows: Sequence[dict[str, Any]], name: str, seeds: Sequence[int], file: str
) -> list[dict[str, Any]]:
    """Return the runs of a method.

    Args:
        rows: of `eakd_det.sweep.runs_csv.read_runs`.
        name: METHOD, METHOD/MODELS or DATASET/METHOD/MODELS.
        seeds: of the runs; empty for all.
        file: that the rows are from, for messages.

    Raises:
        UserError: there are no such runs, or those of several models or datasets.
    """
    groups, found = {}, []
    for (dataset, models, method), group in by_config(rows).items():
        full = f"{dataset}/{method}/{models}"
        groups[full] = group
        if name in (method, f"{method}/{models}", full):
            found.append(full)
    if not found:
        lines = [f"  {full}" for full in groups]
        raise UserError("\n".join([f"--repeat: {file} has no run of {name!r}. It has:", *lines]))
    if len(found) > 1:
        lines = [f"  {full}" for full in found]
        raise UserError("\n".join([f"--repeat: {name!r} is ambiguous in {file}. Name:", *lines]))
    by_seed = {row["seed"]: row for row in groups[found[0]]}
    if missing := [str(seed) for seed in seeds if seed not in by_seed]:
        raise UserError(
            f"--seeds: {file} has no run of {name} with seed {', '.join(missing)}. It has the "
            f"seeds {', '.join(map(str, by_seed))}."
        )
    return [by_seed[seed] for seed in dict.fromkeys(seeds or by_seed)]


def grid_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return "configs", "seeds" and "opts" of runs that `select_rows` has returned.

    Raises:
        UserError: their config is missing.
    """
    first = rows[0]
    config = find_config(first["file"])
    if config is None:
        raise UserError(
            f"{first['place']}, column config: there is no file {first['file']!r}, neither in "
            f"{ROOT} nor in the current folder. Check out the version that has it, or correct the "
            "path."
        )
    return {
        "configs": [config],
        "seeds": [row["seed"] for row in rows],
        "opts": first["options"],
    }


def check_dataset(rows: Sequence[dict[str, Any]], runs: Sequence[Run]) -> None:
    """Raise UserError if the runs are on other data than the rows that they repeat."""
    then, now = rows[0]["dataset"], runs[0].record["dataset"]
    if then != now:
        raise UserError(
            f"{rows[0]['place']} is of a run on {then}, but it would be on {now} now: name the "
            "same data, for a detector with --train-json, --train-images, --val-json and "
            "--val-images."
        )


def folder_of(rows: Sequence[dict[str, Any]], output_dir: str) -> str:
    """Return the output folder: one of its own for a lever, which a config's name lacks."""
    lever = split_method(rows[0]["method"])[1]
    return os.path.join(output_dir, re.sub(r"[^\w.+=-]+", "_", lever)) if lever else output_dir


def repetition_table(
    kind: RunKind,
    rows: Sequence[dict[str, Any]],
    runs: Sequence[Run],
    finished: Sequence[Run] = (),
) -> str:
    """Return the recorded figure of each seed, the figure now, and their difference.

    Args:
        kind: of the runs.
        rows: of the seeds.
        runs: of the same seeds; those that are not finished have no figure.
        finished: those of them that were finished before.
    """
    results = {run.record["seed"]: run.result() for run in runs}
    first, main = rows[0], kind.main
    title = f"{first['dataset']}, {first['method']}/{first['models']}: {kind.metrics[main]}"
    lines = []
    for row in rows:
        then, result = row[main], results[row["seed"]]
        now = DASH, DASH
        if result:
            difference = round(result[main] - then, 2) + 0.0  # not -0.00
            text = DASH if math.isnan(difference) else f"{difference:+.2f}"
            now = f"{result[main]:.2f}", text
        lines.append([str(row["seed"]), f"{then:.2f}", *now])
    header = ["Seed", "Recorded", "Now", "Difference"]
    align = ["right"] * len(header)
    table = tabulate(lines, header, "pipe", disable_numparse=True, colalign=align)
    notes = [
        *_teacher_notes(f"teacher_{main}", rows, results),
        *_config_notes(first, runs[0]),
        *_finished_notes(finished),
    ]
    return "\n\n".join([f"## {title}", table, *notes]) + "\n"


def _teacher_notes(
    key: str, rows: Sequence[dict[str, Any]], results: Mapping[int, dict[str, Any] | None]
) -> list[str]:
    """Return a sentence if the teacher has another figure than it had."""
    for row in rows:
        then, now = row.get(key), (results[row["seed"]] or {}).get(key)
        if then is not None and now is not None and abs(now - then) > EXACT:
            return [
                f"The teacher's figure is {now:.2f}, and {then:.2f} in the file: the students have "
                "learned from another teacher, which changes their figures."
            ]
    return []


def _config_notes(row: dict[str, Any], run: Run) -> list[str]:
    """Return a sentence if the config, or what else a fingerprint holds, has changed."""
    then, now = row["fingerprint"], run.record["fingerprint"]
    if now.startswith(then):
        return []
    return [
        f"The runs now have another fingerprint, {now[:DIGITS]}, and {then} in the file: the "
        "config has changed since, or the paths of the data or the number of processes are others."
    ]


def _finished_notes(finished: Sequence[Run]) -> list[str]:
    """Return a sentence on the runs that were not trained by this call."""
    if not finished:
        return []
    seeds = [str(run.record["seed"]) for run in finished]
    return [
        f"Seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}: finished before in "
        f"{finished[0].folder.parent}, not trained again. Another --output-dir trains anew."
    ]
