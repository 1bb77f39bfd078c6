"""The page: what has been read of runs, drawn and written, in one HTML file."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ..checkpoint import write_atomically
from .curves import loss_charts, progress_charts
from .dynamics import dynamics_charts
from .kinds import Kind, Sweep, kind_of
from .pictures import Picture, analyses, detections, together
from .runs import RunFiles, read_runs
from .table import make_table

TEMPLATE = "page.html.j2"
MOST_TILES = 4
NAMES = {"python": "Python", "detectron2": "Detectron2"}  # of versions; others are as they are


@dataclass(frozen=True)
class Group:
    """Pictures under the name of a run, or of the folder of all runs."""

    label: str
    pictures: list[Picture]


def write_report(texts: list[str], kinds: list[Kind], output: str = "") -> str:
    """Write a page about runs.

    Args:
        texts: `[LABEL=]FOLDER` of each run; a folder that only holds runs stands for them, and that
            of a sweep for its table.
        kinds: that runs can be of.
        output: the file; empty is report.html in the folder that the runs have in common.

    Returns:
        Its path.

    Raises:
        UserError: a folder or a file in it is not what a run leaves, or the runs are of two kinds.
    """
    by_kind = {kind: [sweep for text in texts for sweep in kind.sweeps(text)] for kind in kinds}
    sweeps = [sweep for of_kind in by_kind.values() for sweep in of_kind]
    others = [text for text in texts if text not in {sweep.folder for sweep in sweeps}]
    runs = read_runs(others) if others else []
    kind = kind_of(runs, by_kind, kinds)
    folder = common_folder([*(files.run.folder for files in runs), *(x.folder for x in sweeps)])
    page = render(runs, sweeps, kind, together(Path(folder)))
    path = output or os.path.join(folder, "report.html")
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with write_atomically(path) as f:
        f.write(page)
    return path


def common_folder(folders: list[str]) -> str:
    """The one that all lie in, as seen from here; of a single one, itself."""
    return os.path.relpath(os.path.commonpath([os.path.abspath(folder) for folder in folders]))


def render(runs: list[RunFiles], sweeps: list[Sweep], kind: Kind, shared: list[Picture]) -> str:
    """The HTML of a report.

    Args:
        shared: pictures of all runs together.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["with_symbols"] = with_symbols
    table = make_table(runs, kind)
    datasets = [*(kind.dataset(files.config) for files in runs), *(x.dataset for x in sweeps)]
    return environment.get_template(TEMPLATE).render(
        kind=kind,
        runs=runs,
        sweeps=sweeps,
        datasets=list(dict.fromkeys(datasets)),
        table=table,
        tiles=table.rows if len(table.rows) <= MOST_TILES else [],
        curves=[*progress_charts(runs, kind), *loss_charts(runs)],
        dynamics=dynamics_charts(runs),
        analyses=_groups(runs, analyses),
        shared=[Group("all runs", shared)] if shared else [],
        pictures=_groups(runs, detections),
        names=NAMES,
        written=datetime.now().strftime("%d %B %Y").lstrip("0"),
    )


def with_symbols(text: str) -> Markup:
    """Text with the indices of H_T, H_S and w_EA below the line."""
    return Markup(re.sub(r"\b(H|w)_(T|S|EA)\b", r"\1<sub>\2</sub>", str(escape(text))))


def _groups(runs: list[RunFiles], find: Callable[[Path], list[Picture]]) -> list[Group]:
    """What `find` finds in the runs' folders; runs without are left out."""
    groups = [Group(files.run.label, find(Path(files.run.folder))) for files in runs]
    return [group for group in groups if group.pictures]
