"""A sweep's tables as Markdown and LaTeX."""

import re
from typing import Any

from tabulate import tabulate

DASH = "—"  # where there is no figure
NOTES = (
    "Top-1 in percent after the last epoch: mean ± sample standard deviation over the seeds.",
    "Differences are paired by seed, with the half width of their 95 % interval (Student's t).",
)
_LATEX = {char: "\\" + char for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    DASH: "---",
}
_MINUS = re.compile(r"^-(?=\d)")  # of a number, not the hyphen of EA-KD

Table = tuple[list[str], list[list[str]]]  # header, rows


def as_markdown(
    summary: list[dict[str, Any]],
    differences: list[dict[str, Any]],
    options: dict[str, list[str]],
) -> str:
    """Both tables for each dataset, and where their figures come from.

    Args:
        summary: of `classification.tables.summarize`.
        differences: of `classification.tables.compare`.
        options: config -> KEY VALUE pairs of its runs.
    """
    parts = []
    for dataset in dict.fromkeys(entry["dataset"] for entry in summary):
        parts.append(f"## {dataset}")
        for header, rows in dataset_tables(dataset, summary, differences):
            align = ["left", "left", *["right"] * (len(header) - 2)]
            text = tabulate(rows, header, "pipe", disable_numparse=True, colalign=align)
            parts.append(text)
    notes = [*NOTES]
    sources = dict.fromkeys(entry["source"] for entry in summary if "source" in entry)
    if sources:
        notes.append(f"Published: {'; '.join(sources)}.")
    for given in dict.fromkeys(tuple(pairs) for pairs in options.values() if pairs):
        names = [name for name, pairs in options.items() if tuple(pairs) == given]
        which = "all runs" if len(names) == len(options) else ", ".join(names)
        notes.append(f"Options of {which}: `{' '.join(given)}`.")
    return "\n\n".join([*parts, "\n".join(notes)]) + "\n"


def as_latex(summary: list[dict[str, Any]], differences: list[dict[str, Any]]) -> str:
    r"""The same tables as tabulars, for \usepackage{booktabs}."""
    lines = [r"% \usepackage{booktabs}"]
    for dataset in dict.fromkeys(entry["dataset"] for entry in summary):
        for header, rows in dataset_tables(dataset, summary, differences):
            cells = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in [header, *rows]]
            lines += [
                f"% {dataset}",
                rf"\begin{{tabular}}{{ll{'r' * (len(header) - 2)}}}",
                *(r"\toprule", cells[0], r"\midrule", *cells[1:], r"\bottomrule"),
                r"\end{tabular}",
            ]
    return "\n".join(lines) + "\n"


def _latex(cell: str) -> str:
    escaped = "".join(_LATEX.get(char, char) for char in cell)
    return _MINUS.sub("$-$", escaped)


def dataset_tables(
    dataset: str, summary: list[dict[str, Any]], differences: list[dict[str, Any]]
) -> list[Table]:
    """The means of a dataset's configs, and, if there are any, the paired differences."""
    header = ["Models", "Method", "Top-1", "Runs", "Teacher", "Published", "Difference"]
    tables = [(header, [_mean_row(e) for e in summary if e["dataset"] == dataset])]
    paired = [_paired_row(e) for e in differences if e["dataset"] == dataset]
    return [*tables, (["Models", "Methods", "Difference", "Runs"], paired)] if paired else tables


def _mean_row(entry: dict[str, Any]) -> list[str]:
    published = DASH
    if "published_mean" in entry:
        published = _number(entry["published_mean"])
        if entry["published_std"] is not None:
            published += f" ± {_number(entry['published_std'])}"
    return [
        entry["models"],
        entry["method"],
        f"{_number(entry['mean'])} ± {_number(entry['std'])}",
        str(entry["runs"]),
        _number(entry["teacher_top1"]),
        published,
        _number(entry.get("difference"), sign="+"),
    ]


def _paired_row(entry: dict[str, Any]) -> list[str]:
    return [
        entry["models"],
        f"{entry['method']} minus {entry['minus']}",
        f"{_number(entry['mean'], sign='+')} ± {_number(entry['interval'])}",
        str(entry["runs"]),
    ]


def _number(value: float | None, sign: str = "") -> str:
    return DASH if value is None else f"{value:{sign}.2f}"
