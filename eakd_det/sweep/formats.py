"""A sweep's tables as Markdown and LaTeX."""

import re
import shlex
from collections.abc import Iterable
from typing import Any

from tabulate import tabulate

from .kinds import RunKind

DASH = "—"  # where there is no figure
_LATEX = {char: "\\" + char for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": "$<$",
    DASH: "---",
}
_MINUS = re.compile(r"^-(?=\d)")  # of a number, not the hyphen of EA-KD

Table = tuple[list[str], list[list[str]]]  # header, rows


def as_markdown(
    kind: RunKind,
    summary: list[dict[str, Any]],
    differences: list[dict[str, Any]],
    options: dict[str, list[str]],
) -> str:
    """Return both tables of each dataset, with notes on their figures.

    Args:
        summary: as `eakd_det.sweep.tables.summarize` returns it.
        differences: as `eakd_det.sweep.comparison.compare` returns them.
        options: config -> KEY VALUE pairs of its runs.
    """
    parts = []
    for dataset in dict.fromkeys(entry["dataset"] for entry in summary):
        parts.append(f"## {dataset}")
        for header, rows in dataset_tables(kind, dataset, summary, differences):
            align = ["left", "left", *["right"] * (len(header) - 2)]
            text = tabulate(rows, header, "pipe", disable_numparse=True, colalign=align)
            parts.append(text)
    lines = [*notes(kind, summary, differences), *_option_notes(options)]
    return "\n\n".join([*parts, "\n".join(lines)]) + "\n"


def _option_notes(options: dict[str, list[str]]) -> list[str]:
    """Return the KEY VALUE pairs that all configs have, and the others of each."""
    pairs = {
        name: list(zip(given[::2], given[1::2], strict=True)) for name, given in options.items()
    }
    first = next(iter(pairs.values()), [])
    common = [pair for pair in first if all(pair in given for given in pairs.values())]
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {tuple(common): ["all runs"]}
    for name, given in pairs.items():
        rest = tuple(pair for pair in given if pair not in common)
        if rest:
            groups.setdefault(rest, []).append(name)
    return [
        f"Options of {', '.join(names)}: `{shlex.join(word for pair in given for word in pair)}`."
        for given, names in groups.items()
        if given
    ]


def notes(
    kind: RunKind, summary: list[dict[str, Any]], differences: list[dict[str, Any]]
) -> list[str]:
    """Return sentences on the figures, and the sources of published ones."""
    lines = [
        f"{kind.note}: mean ± sample standard deviation over the seeds.",
        *difference_notes(kind, differences),
        *left_out_notes(summary),
    ]
    sources = dict.fromkeys(entry["source"] for entry in summary if "source" in entry)
    return [*lines, f"Published: {'; '.join(sources)}."] if sources else lines


def difference_notes(kind: RunKind, differences: list[dict[str, Any]]) -> list[str]:
    """Return sentences on paired differences: their interval, tests and caveats."""
    lines = [
        "Differences are paired by seed, with the half width of their 95 % interval (Student's t)."
    ]
    if tested := sum(entry["p"] is not None for entry in differences):
        lines += [
            f"p: paired t test of {kind.metrics[kind.main]}, two-sided, corrected for "
            f"{tested} comparison{'s' * (tested > 1)} (Holm, 1979).",
            "Effect: mean over standard deviation of the differences (Cohen's d_z, Lakens 2013).",
        ]
    return [*lines, *(text for entry in differences for text in entry.get("caveats", []))]


def left_out_notes(entries: Iterable[dict[str, Any]]) -> list[str]:
    """Return a sentence on each entry with "unmeasured" seeds, which no figure has."""
    return [
        f"Left out: {entry['method']}, {entry['models']} on {entry['dataset']}, seed "
        f"{', '.join(map(str, entry['unmeasured']))}, whose figures are not numbers (a training "
        "that diverged, or a detector without detections)."
        for entry in entries
        if "unmeasured" in entry
    ]


def as_latex(
    kind: RunKind, summary: list[dict[str, Any]], differences: list[dict[str, Any]]
) -> str:
    r"""Return the same tables as tabulars, for \usepackage{booktabs}."""
    lines = [r"% \usepackage{booktabs}"]
    for dataset in dict.fromkeys(entry["dataset"] for entry in summary):
        for header, rows in dataset_tables(kind, dataset, summary, differences):
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
    kind: RunKind,
    dataset: str,
    summary: list[dict[str, Any]],
    differences: list[dict[str, Any]],
) -> list[Table]:
    """Return the means of a dataset's configs, and the paired differences if there are any."""
    names = list(kind.metrics.values())
    titles = [name[0].upper() + name[1:] for name in names]
    header = ["Models", "Method", *titles, "Runs", "Teacher", "Published", "Difference"]
    tables = [(header, [_mean_row(kind, e) for e in summary if e["dataset"] == dataset])]
    paired = [entry for entry in differences if entry["dataset"] == dataset]
    if not paired:
        return tables
    several = [f"Difference in {name}" for name in names] if len(names) > 1 else ["Difference"]
    tests = ["p (Holm)", "Effect"] if any(entry["p"] is not None for entry in paired) else []
    header = ["Models", "Methods", *several, *tests, "Runs"]
    return [*tables, (header, [_paired_row(kind, entry, bool(tests)) for entry in paired])]


def _mean_row(kind: RunKind, entry: dict[str, Any]) -> list[str]:
    published = DASH
    if "published_mean" in entry:
        published = _number(entry["published_mean"])
        if entry["published_std"] is not None:
            published += f" ± {_number(entry['published_std'])}"
    return [
        entry["models"],
        entry["method"],
        *(f"{_number(entry[x + 'mean'])} ± {_number(entry[x + 'std'])}" for x in _prefixes(kind)),
        str(entry["runs"]),
        _number(entry[f"teacher_{kind.main}"]),
        published,
        _number(entry.get("difference"), sign="+"),
    ]


def _paired_row(kind: RunKind, entry: dict[str, Any], has_tests: bool) -> list[str]:
    tests = [as_p_value(entry["p_holm"]), _number(entry["effect"], sign="+")]
    return [
        entry["models"],
        f"{entry['method']} minus {entry['minus']}",
        *(
            f"{_number(entry[x + 'mean'], sign='+')} ± {_number(entry[x + 'interval'])}"
            for x in _prefixes(kind)
        ),
        *(tests if has_tests else []),
        str(entry["runs"]),
    ]


def _prefixes(kind: RunKind) -> list[str]:
    """Prefixes of each metric's keys in an entry; the main one has none."""
    return ["", *(f"{key}_" for key in [*kind.metrics][1:])]


def _number(value: float | None, sign: str = "") -> str:
    return DASH if value is None else f"{value:{sign}.2f}"


def as_p_value(value: float | None) -> str:
    """Return a p value as text, "<0.001" below that."""
    if value is None:
        return DASH
    return "<0.001" if value < 0.001 else f"{value:.3f}"
