"""Accuracy of each class, and which classes are taken for which others."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .figures import panel_figure
from .plane_figures import MOST_NAMES
from .results import AnalysisResult
from .samples import Samples

MOST_ROWS = 30  # of the table: the classes of the lowest accuracy
MOST_CONFUSIONS = 2  # named for a class


def count_confusions(samples: Samples) -> Tensor:
    """Return (C, C) int64, the number of samples of each true class (rows) by predicted class."""
    number = samples.logits.shape[1]
    pairs = samples.labels * number + samples.logits.argmax(dim=1)
    return pairs.bincount(minlength=number**2).view(number, number)


def confusions_result(
    samples: Mapping[str, Samples],
    rows: list[list[str]],
    *,
    names: Sequence[str],
    what: str = "test images",
) -> AnalysisResult:
    """Count each network's confusions, and list the classes with the first network's lowest top-1.

    Args:
        samples: outputs of each network.
        rows: of `eakd_det.analysis.figures.panel_rows`.
        names: of the classes.
        what: name of the samples, in the plural.
    """
    counts = {name: count_confusions(of) for name, of in samples.items()}
    number = next(iter(counts.values())).sum(dim=1)
    top1 = {name: (100 * of.diagonal() / number) for name, of in counts.items()}
    known = [i for i in range(len(names)) if number[i]]
    worst = sorted(known, key=next(iter(top1.values())).tolist().__getitem__)[:MOST_ROWS]
    table = [
        [names[i], int(number[i])]
        + [
            cell
            for name in counts
            for cell in (float(top1[name][i]), _taken(counts[name], i, names))
        ]
        for i in worst
    ]
    headers = ["class", what]
    headers += [cell for name in counts for cell in (f"{name}: top-1 (%)", "taken for")]
    numbers = {
        "classes": list(names),
        "samples": number.tolist(),
        "networks": {
            name: {
                "top1": {names[i]: float(top1[name][i]) for i in known},
                "predicted": of.tolist(),
            }
            for name, of in counts.items()
        },
    }
    figure = draw_confusions(counts, rows, names=names, what=what)
    return AnalysisResult({"confusions": (figure, numbers)}, headers, table)


def _taken(counts: Tensor, label: int, names: Sequence[str]) -> str:
    """Return the classes for which a class is taken most often, as "dog 3, cat 1"."""
    wrong = counts[label].clone()
    wrong[label] = 0
    found = wrong.sort(descending=True, stable=True)
    pairs = zip(found.values[:MOST_CONFUSIONS].tolist(), found.indices.tolist(), strict=False)
    return ", ".join(f"{names[i]} {n}" for n, i in pairs if n) or "-"


def draw_confusions(
    counts: Mapping[str, Tensor], rows: list[list[str]], *, names: Sequence[str], what: str
) -> Figure:
    """Draw the share of each true class's samples that each class is predicted for.

    Args:
        counts: network -> its `count_confusions`.
        rows: rows of panels, see `eakd_det.analysis.figures.panel_rows`.
        names: of the classes; up to MOST_NAMES are written.
        what: name of the samples, in the plural.
    """
    side = 2.4 + 0.12 * min(len(names), MOST_NAMES)
    figure, panels = panel_figure(rows, (side, side + 0.4))
    for name, axes in panels.items():
        shares = counts[name] / counts[name].sum(dim=1, keepdim=True).clamp(min=1)
        drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        accuracy = 100 * counts[name].diagonal().sum() / counts[name].sum()
        axes.set_title(f"{name}\ntop-1 {accuracy:.1f} %")
        axes.set_xlabel("predicted class")
        _label(axes, names, shares)
    for row in rows:
        panels[row[0]].set_ylabel("true class")
    bar = figure.colorbar(drawn, ax=list(panels.values()), shrink=0.8)
    bar.set_label(f"share of the class's {what}")
    return figure


def _label(axes: Axes, names: Sequence[str], shares: Tensor) -> None:
    """Write the names of the classes, and the shares of a percent and more."""
    if len(names) > MOST_NAMES:
        return
    places = range(len(names))
    axes.set_xticks(places, names, rotation=60, ha="right", rotation_mode="anchor", size="small")
    axes.set_yticks(places, names, size="small")
    for i, j in torch.nonzero(shares >= 0.005).tolist():
        colour = "white" if shares[i, j] > 0.6 else "black"
        text = f"{100 * shares[i, j]:.0f}"
        axes.text(j, i, text, ha="center", va="center", color=colour, size="x-small")
