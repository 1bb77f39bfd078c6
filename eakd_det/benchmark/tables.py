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
    "host_seconds": Column("host\nms", 1000.0, ".2f"),
    "busy": Column("GPU\nbusy %", 100.0),
    "launches": Column("launches"),
    "kernels": Column("kernels"),
    "allocated_mib": Column("allocated\nMiB", has_ratio=True),
    "reserved_mib": Column("reserved\nMiB", has_ratio=True),
    "above_mib": Column("MiB above\ninputs"),
    "operations": Column("operations"),
    "peak_mib": Column("peak\nMiB"),
    "tokens_per_second": Column("tokens/s"),
}


def table(
    title: str, rows: dict[str, Figures], base: str, notes: dict[str, str] | None = None
) -> str:
    """Return the table of `cells` below its title."""
    headings, *lines = cells(rows, base, notes)
    align = ["left", *["right"] * (len(headings) - 1)]
    if notes:
        align[-1] = "left"
    text = tabulate(lines, headings, colalign=align, disable_numparse=True)
    return f"{title}\n\n{text}"


def cells(
    rows: dict[str, Figures], base: str, notes: dict[str, str] | None = None
) -> list[list[str]]:
    """Return the headings and the rows of the columns that any row has, as text.

    Args:
        rows: name -> figures; a figure that a row lacks is left empty.
        base: name of the row to which ratios are given.
        notes: name -> text of a last column.
    """
    columns = [name for name in COLUMNS if any(name in figures for figures in rows.values())]
    lines = [["", *(text for name in columns for text in _headings(COLUMNS[name], base))]]
    for name, figures in rows.items():
        lines.append([name, *(x for c in columns for x in _cells(c, figures, rows[base]))])
    if notes:
        for line in lines:
            line.append(notes.get(line[0], "") if line[0] else "options")
    return lines


def _headings(column: Column, base: str) -> list[str]:
    return [column.heading, f"of\n{base}"] if column.has_ratio else [column.heading]


def _cells(name: str, figures: Figures, base: Figures) -> list[str]:
    column = COLUMNS[name]
    if name not in figures:
        return [""] * (1 + column.has_ratio)
    cells = [f"{column.factor * figures[name]:{column.format}}"]
    if column.has_ratio:
        cells.append(f"{figures[name] / base[name]:.3f}" if base.get(name) else "")
    return cells
