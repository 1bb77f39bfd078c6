"""The table of a report: the figures of each run, its teacher's, and those that papers report."""

from collections.abc import Iterable
from dataclasses import dataclass

from eakd_det.sweep.formats import DASH
from eakd_det.sweep.kinds import RunKind
from eakd_det.sweep.published import Published
from eakd_det.sweep.run_files import RunFiles

from .differences import teachers_of

NO_METHOD = "not distilled"


@dataclass(frozen=True)
class Row:
    """A run's line.

    Attributes:
        method, models, teacher: texts of its cells.
        figures: column of the table -> figure as text.
        best: columns in which no other run is above it.
        published: figures of a paper for it, as another line.
    """

    files: RunFiles
    method: str
    models: str
    figures: dict[str, str]
    best: set[str]
    teacher: str
    published: "PublishedRow | None"


@dataclass(frozen=True)
class PublishedRow:
    """Figures of a paper as text; see `Published`."""

    method: str
    figures: dict[str, str]
    teacher: str
    source: str


@dataclass(frozen=True)
class Table:
    """The rows under their columns.

    Attributes:
        columns: those with a figure, and the main one in any case.
    """

    columns: list[str]
    rows: list[Row]

    @property
    def has_teachers(self) -> bool:
        """Return whether the figure of any teacher is known."""
        lines = [*self.rows, *(row.published for row in self.rows if row.published)]
        return any(line.teacher != DASH for line in lines)

    @property
    def sources(self) -> list[str]:
        """Sources of the published figures."""
        return list(dict.fromkeys(row.published.source for row in self.rows if row.published))


def make_table(runs: list[RunFiles], kind: RunKind) -> Table:
    """Build a row for each run, in the order given; the best is one of the students."""
    teachers = teachers_of(runs, kind)
    figures = {files.run.label: kind.figures(files) for files in runs}
    published = {files.run.label: kind.published(files.config) for files in runs}
    in_papers = [_published_figures(found, kind) for found in published.values() if found]
    known = dict.fromkeys(column for of in (*figures.values(), *in_papers) for column in of)
    columns = [column for column in kind.columns if column in known or column == kind.columns[0]]
    columns += [column for column in known if column not in columns]
    students = [of for label, of in figures.items() if label not in teachers]
    highest = {column: _highest(students, column) for column in columns}
    rows = []
    for files in runs:
        label = files.run.label
        mine, is_compared = figures[label], len(students) > 1 and label not in teachers
        best = {column for column in columns if mine.get(column) == highest[column] is not None}
        rows.append(
            Row(
                files,
                method=kind.method(files.config) or NO_METHOD,
                models=kind.pair(files.config),
                figures={column: percent(mine.get(column)) for column in columns},
                best=best if is_compared else set(),
                teacher=percent(kind.teacher(files)),
                published=_published_row(published[label], columns, kind),
            )
        )
    return Table(columns, rows)


def class_table(runs: list[RunFiles], kind: RunKind) -> tuple[list[str], list[list[str]]] | None:
    """Return head and rows of the main metric of each class; None if no run has noted it."""
    found = {files.run.label: of for files in runs if (of := kind.per_class(files))}
    names = dict.fromkeys(name for of in found.values() for name in of)
    rows = [[name, *(percent(of.get(name)) for of in found.values())] for name in names]
    return (["class", *found], rows) if found else None


def _highest(figures: Iterable[dict[str, float]], column: str) -> float | None:
    return max((of_run[column] for of_run in figures if column in of_run), default=None)


def _published_row(
    found: Published | None, columns: list[str], kind: RunKind
) -> PublishedRow | None:
    if found is None:
        return None
    of_columns = _published_figures(found, kind)
    figures = {column: percent(of_columns.get(column)) for column in columns}
    if found.std is not None:
        figures[next(iter(of_columns))] += f" ± {percent(found.std)}"
    return PublishedRow(found.method or NO_METHOD, figures, percent(found.teacher), found.source)


def _published_figures(found: Published, kind: RunKind) -> dict[str, float]:
    """Return column -> figure."""
    titles = kind.measured([found.figures]).metrics
    return {titles[key]: value for key, value in found.figures.items()}


def percent(value: float | None) -> str:
    """Format a figure with two decimals, as papers do."""
    return DASH if value is None else f"{value:.2f}"


def millions(number: int | None) -> str:
    """Format a number of parameters with three digits."""
    if number is None:
        return DASH
    return f"{number / 1e6:.3g} M" if number >= 1e6 else f"{number / 1e3:.3g} k"


def duration(seconds: float | None, *, is_counted: bool = True) -> str:
    """Format a time as "25 s", "8 min 35 s" or "51 h 20 min"; "about" if it was summed up."""
    if seconds is None:
        return DASH
    about, whole = "" if is_counted else "about ", round(seconds)
    if whole < 100:
        return f"{about}{whole} s"
    if whole < 3600:
        return f"{about}{whole // 60} min {whole % 60} s"
    minutes = round(whole / 60)
    return f"{about}{minutes // 60} h {minutes % 60} min"
