"""The page: what has been read of runs, drawn and written, in one HTML file."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..checkpoint import write_atomically
from .curves import loss_charts, progress_charts
from .dynamics import dynamics_charts
from .kinds import Kind, kind_of
from .pictures import Picture, analyses, detections, together
from .runs import RunFiles, folders_of, read_runs
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
        texts: `[LABEL=]FOLDER` of each run; a folder that only holds runs stands for them.
        kinds: that runs can be of.
        output: the file; empty is report.html in the folder that the runs have in common.

    Returns:
        Its path.

    Raises:
        UserError: a folder or a file in it is not what a run leaves, or the runs are of two kinds.
    """
    runs = read_runs(texts)
    page = render(runs, kind_of(runs, kinds))
    path = output or os.path.join(os.path.relpath(folders_of(runs)), "report.html")
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with write_atomically(path) as f:
        f.write(page)
    return path


def render(runs: list[RunFiles], kind: Kind) -> str:
    """The HTML of a report."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    table = make_table(runs, kind)
    pictures = _groups(runs, detections)
    if shared := together(Path(folders_of(runs))):
        pictures.insert(0, Group("all runs", shared))
    return environment.get_template(TEMPLATE).render(
        kind=kind,
        runs=runs,
        datasets=list(dict.fromkeys(kind.dataset(files.config) for files in runs)),
        table=table,
        tiles=table.rows if len(table.rows) <= MOST_TILES else [],
        curves=[*progress_charts(runs, kind), *loss_charts(runs)],
        dynamics=dynamics_charts(runs),
        analyses=_groups(runs, analyses),
        pictures=pictures,
        names=NAMES,
        written=datetime.now().strftime("%d %B %Y").lstrip("0"),
    )


def _groups(runs: list[RunFiles], find: Callable[[Path], list[Picture]]) -> list[Group]:
    """What `find` finds in the runs' folders; runs without are left out."""
    groups = [Group(files.run.label, find(Path(files.run.folder))) for files in runs]
    return [group for group in groups if group.pictures]
