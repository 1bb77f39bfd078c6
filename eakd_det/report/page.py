"""Rendering of a report of runs as one HTML file."""

import os
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from eakd_det.sweep.find_kind import common_kind, kind_of
from eakd_det.sweep.kinds import RunKind
from eakd_det.sweep.run_files import RunFiles
from eakd_det.utils.files import write_atomically

from .curves import loss_charts, progress_charts
from .differences import difference_tables
from .dynamics import dynamics_charts
from .pictures import Picture, analyses, detections, together
from .runs import by_group, read_runs
from .sweeps import Sweep, read_sweeps
from .table import class_table, duration, make_table, millions

TEMPLATE = "page.html.j2"
MOST_TILES = 4
NAMES = {"python": "Python", "detectron2": "Detectron2"}  # displayed names of packages


@dataclass(frozen=True)
class Group:
    """Pictures of a run, or of all runs together, under a label."""

    label: str
    pictures: list[Picture]


def write_report(texts: list[str], kinds: Sequence[RunKind], output: str = "") -> str:
    """Write the report of some runs.

    Args:
        texts: `[LABEL=]FOLDER` of each run. A folder of runs stands for all of them, and the folder
            of a sweep for its table.
        kinds: possible kinds of the runs.
        output: path of the report; empty is report.html in the common folder of the runs.

    Returns:
        The path of the report.

    Raises:
        UserError: a folder or a file in it is not that of a run, or the runs are of two kinds.
    """
    by_kind = {kind: [sweep for x in texts for sweep in read_sweeps(x, kind)] for kind in kinds}
    sweeps = [sweep for of_kind in by_kind.values() for sweep in of_kind]
    others = [text for text in texts if text not in {sweep.folder for sweep in sweeps}]
    runs = read_runs(others, kinds) if others else []
    names = Counter([x.run.label for x in runs])
    for sweep in sweeps:
        names.update({config for config, _ in sweep.runs.values()})
    swept = [files for sweep in sweeps for files in _runs_of(sweep, kinds, names)]
    found = {sweep.folder: kind for kind, of_kind in by_kind.items() for sweep in of_kind}
    found |= {x.run.folder: kind_of(x.config, kinds, x.run.folder) for x in runs}
    kind = common_kind(found, "report")
    folders = [*(files.run.folder for files in runs), *(sweep.folder for sweep in sweeps)]
    folder = os.path.relpath(os.path.commonpath(map(os.path.abspath, folders)))
    page = render(runs, sweeps, swept, kind, together(Path(folder)))
    path = output or os.path.join(folder, "report.html")
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with write_atomically(path) as f:
        f.write(page)
    return path


def _runs_of(sweep: Sweep, kinds: Sequence[RunKind], counts: Mapping[str, int]) -> list[RunFiles]:
    """Read the runs of a sweep, grouped by their config.

    Args:
        counts: name -> how many runs and configs of sweeps have it; a name that several have is
            followed by the sweep's folder and dataset.
    """
    names = {folder: f"{config}, seed {seed}" for folder, (config, seed) in sweep.runs.items()}
    if not names:
        return []
    runs = read_runs([f"{name}={folder}" for folder, name in names.items()], kinds)
    groups = [
        config if counts[config] == 1 else f"{config} ({sweep.folder}, {sweep.dataset})"
        for config, _ in sweep.runs.values()
    ]
    return [replace(files, group=group) for files, group in zip(runs, groups, strict=True)]


def render(
    runs: list[RunFiles],
    sweeps: list[Sweep],
    swept: list[RunFiles],
    kind: RunKind,
    shared: list[Picture],
) -> str:
    """Render the HTML of a report.

    Args:
        swept: the runs of the sweeps.
        shared: pictures of all runs together.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {"with_symbols": with_symbols, "millions": millions, "duration": duration}
    environment.filters |= {**filters, "spaced": lambda number: f"{number:,}".replace(",", " ")}
    script = Path(__file__).with_name("page.js").read_text()
    everything = [*runs, *swept]
    table = make_table(runs, kind)
    differences, difference_notes, left_out = difference_tables(runs, kind)
    datasets = [*(kind.dataset(files.config) for files in runs), *(x.dataset for x in sweeps)]
    return environment.get_template(TEMPLATE).render(
        kind=kind,
        runs=runs,
        sweeps=sweeps,
        datasets=list(dict.fromkeys(datasets)),
        table=table,
        swept=make_table(swept, kind),
        differences=differences,
        difference_notes=difference_notes,
        left_out=left_out,
        classes=class_table(runs, kind),
        tiles=table.rows if len(table.rows) <= MOST_TILES else [],
        curves=[*progress_charts(everything, kind), *loss_charts(everything)],
        dynamics=dynamics_charts(everything),
        analyses=_compared_first(_groups(everything, analyses)),
        shared=[Group("all runs", shared)] if shared else [],
        pictures=_groups(everything, detections),
        made=by_group(everything),
        names=NAMES,
        script=Markup(script),
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        written=datetime.now().strftime("%d %B %Y").lstrip("0"),
    )


def with_symbols(text: str) -> Markup:
    """Format the indices of H_T, H_S and w_EA in a text as subscripts."""
    return Markup(re.sub(r"\b(H|w)_(T|S|EA)\b", r"\1<sub>\2</sub>", str(escape(text))))


def _compared_first(groups: list[Group]) -> list[Group]:
    """Put figures that compare runs, grouped by these runs, before the figures of single runs."""
    found: dict[str, list[Picture]] = {}
    for group in groups:
        for picture in group.pictures:
            if picture.compared:
                found.setdefault(f"{', '.join(picture.compared)} compared", []).append(picture)
    alone = [Group(g.label, [p for p in g.pictures if not p.compared]) for g in groups]
    compared = [Group(label, pictures) for label, pictures in found.items()]
    return [*compared, *(group for group in alone if group.pictures)]


def _groups(runs: list[RunFiles], find: Callable[[Path], list[Picture]]) -> list[Group]:
    """Collect the pictures that `find` returns for each run's folder; skip runs without any."""
    groups = [Group(files.run.label, find(Path(files.run.folder))) for files in runs]
    return [group for group in groups if group.pictures]
