"""The table of a report: what each run has reached, beside its teacher and what papers report."""

from collections.abc import Iterable
from dataclasses import dataclass

from .differences import teachers_of
from .kinds import Kind, Published
from .runs import RunFiles

DASH = "—"  # where there is no figure


@dataclass(frozen=True)
class Row:
    """A run's line, as text.

    Attributes:
        figures: column -> figure, of the columns of the table.
        best: the columns in which no other run is above it.
        published: what a paper reports for it, as another line.
        sort_keys: numbers behind parameters, iterations and seconds, None where there are none.
    """

    label: str
    method: str
    models: str
    figures: dict[str, str]
    best: frozenset[str]
    teacher: str
    parameters: str
    iterations: str
    seconds: str
    published: "PublishedRow | None"
    sort_keys: dict[str, int | None]


@dataclass(frozen=True)
class PublishedRow:
    """What a paper reports, as text; see `Published`."""

    method: str
    figures: dict[str, str]
    teacher: str
    source: str


@dataclass(frozen=True)
class Table:
    """The rows under their columns.

    Attributes:
        columns: those of the kind in which there is a figure, the main one in any case.
    """

    columns: list[str]
    rows: list[Row]

    @property
    def has_teachers(self) -> bool:
        """Whether the figure of any teacher is known."""
        lines = [*self.rows, *(row.published for row in self.rows if row.published)]
        return any(line.teacher != DASH for line in lines)

    @property
    def sources(self) -> list[str]:
        """Of the published figures."""
        return list(dict.fromkeys(row.published.source for row in self.rows if row.published))


def make_table(runs: list[RunFiles], kind: Kind) -> Table:
    """A line for each run, in the order given; the best is one of the students."""
    teachers = teachers_of(runs, kind)
    figures = {files.run.label: kind.figures(files) for files in runs}
    published = {files.run.label: kind.published(files) for files in runs}
    known = {kind.columns[0]}.union(*figures.values())
    known = known.union(*(found.figures for found in published.values() if found is not None))
    columns = [column for column in kind.columns if column in known]
    students = [of for label, of in figures.items() if label not in teachers]
    highest = {column: _highest(students, column) for column in columns}
    rows = []
    for files in runs:
        mine, (seconds, is_counted) = figures[files.run.label], files.seconds
        best = {column for column in columns if mine.get(column) == highest[column] is not None}
        rows.append(
            Row(
                label=files.run.label,
                method=kind.method(files.config) or "not distilled",
                models=kind.models(files.config),
                figures={column: percent(mine.get(column)) for column in columns},
                best=frozenset(
                    best if len(students) > 1 and files.run.label not in teachers else ()
                ),
                teacher=percent(kind.teacher(files)),
                parameters=millions(files.parameters),
                iterations=f"{files.iterations:,}".replace(",", " "),
                seconds=duration(seconds, is_counted=is_counted),
                sort_keys={
                    "parameters": files.parameters,
                    "iterations": files.iterations,
                    "seconds": None if seconds is None else round(seconds),
                },
                published=_published_row(published[files.run.label], columns),
            )
        )
    return Table(columns, rows)


def _highest(figures: Iterable[dict[str, float]], column: str) -> float | None:
    return max((of_run[column] for of_run in figures if column in of_run), default=None)


def _published_row(found: Published | None, columns: list[str]) -> PublishedRow | None:
    if found is None:
        return None
    figures = {}
    for column in columns:
        figures[column] = percent(found.figures.get(column))
        if column in found.deviations:
            figures[column] += f" ± {percent(found.deviations[column])}"
    return PublishedRow(found.method, figures, percent(found.teacher), found.source)


def percent(value: float | None) -> str:
    """Two decimals, as papers have them."""
    return DASH if value is None else f"{value:.2f}"


def millions(number: int | None) -> str:
    """Three digits of a number of parameters."""
    if number is None:
        return DASH
    return f"{number / 1e6:.3g} M" if number >= 1e6 else f"{number / 1e3:.3g} k"


def duration(seconds: float | None, *, is_counted: bool = True) -> str:
    """The two largest units: "25 s", "8 min 35 s", "51 h 20 min"; "about" if it was summed up."""
    if seconds is None:
        return DASH
    about, whole = "" if is_counted else "about ", round(seconds)
    if whole < 100:
        return f"{about}{whole} s"
    if whole < 3600:
        return f"{about}{whole // 60} min {whole % 60} s"
    minutes = round(whole / 60)
    return f"{about}{minutes // 60} h {minutes % 60} min"
