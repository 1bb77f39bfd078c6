"""Tables of measured steps as text."""

from typing import NamedTuple

from tabulate import tabulate

from .measure import Figures


class Column(NamedTuple):
    """Heading and format of a column; with `has_ratio` the ratio to the first row follows."""

    heading: str
    factor: float = 1.0
    format: str = ".0f"
    has_ratio: bool = False


COLUMNS = {
    "seconds": Column("ms", 1000.0, ".2f", has_ratio=True),
    "host_seconds": Column("host ms", 1000.0, ".2f"),
    "busy": Column("GPU busy %", 100.0),
    "launches": Column("launches"),
    "kernels": Column("kernels"),
    "allocated_mib": Column("allocated MiB", has_ratio=True),
    "reserved_mib": Column("reserved MiB", has_ratio=True),
    "above_mib": Column("above inputs MiB"),
    "operations": Column("operations"),
    "peak_mib": Column("peak MiB"),
    "tokens_per_second": Column("tokens/s"),
}


def table(
    title: str, rows: dict[str, Figures], base: str, notes: dict[str, str] | None = None
) -> str:
    """Return the columns that any row has, with ratios to the row `base`.

    Args:
        title: heading of the names.
        rows: name -> figures; a figure that a row lacks is left empty.
        base: name of a row.
        notes: name -> text of a last column.
    """
    columns = [name for name in COLUMNS if any(name in figures for figures in rows.values())]
    headings = [title, *(text for name in columns for text in _headings(COLUMNS[name], base))]
    lines = [
        [name, *(cell for c in columns for cell in _cells(c, figures, rows[base]))]
        for name, figures in rows.items()
    ]
    align = ["left", *["right"] * (len(headings) - 1)]
    if notes:
        headings.append("options")
        align.append("left")
        lines = [[*line, notes.get(line[0], "")] for line in lines]
    return tabulate(lines, headings, colalign=align, disable_numparse=True)


def _headings(column: Column, base: str) -> list[str]:
    return [column.heading, f"of {base}"] if column.has_ratio else [column.heading]


def _cells(name: str, figures: Figures, base: Figures) -> list[str]:
    column = COLUMNS[name]
    if name not in figures:
        return [""] * (1 + column.has_ratio)
    cells = [f"{column.factor * figures[name]:{column.format}}"]
    if column.has_ratio:
        cells.append(f"{figures[name] / base[name]:.3f}" if base.get(name) else "")
    return cells
