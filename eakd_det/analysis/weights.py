"""Variation of w_EA over the samples, by the teacher's entropy and by the student's factor.

w_EA = (H_T / 2) (1 + H_S / H_ub) (EA-KD, arXiv 2311.13621) is a product, whose factors are analysed
separately.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from scipy import stats
from torch import Tensor

from eakd_det.losses.entropy import combine_entropies

from .results import AnalysisResult
from .samples import Samples
from .weight_figures import draw_weights


@dataclass(frozen=True)
class Weights:
    """Statistics of w_EA over some samples; variations are standard deviations over means.

    Attributes:
        mean: mean of w_EA, the scale of the loss.
        variation: variation of w_EA.
        of_teacher: variation of H_T, the weight by the teacher's entropy alone.
        of_student: variation of the student's factor, 1 + H_S / H_ub.
        order: Spearman's correlation of w_EA and H_T; at 1 the student's factor does not change the
            order. None if all values of one are equal.
        entropies: Spearman's correlation of H_T and H_S; None as above.
        effective: effective sample size (Kish) as a fraction of the number of samples.
        on_errors: mean w_EA of the student's errors over the mean of all; None without errors.
    """

    mean: float
    variation: float
    of_teacher: float
    of_student: float
    order: float | None
    entropies: float | None
    effective: float
    on_errors: float | None


def measure_weights(student: Samples, teacher: Samples, *, temperature: float) -> Weights:
    """Measure the variation of w_EA and of its factors.

    Args:
        student, teacher: outputs for the same samples, at least two.
        temperature: softmax temperature of the entropies.
    """
    weight = student.weight(teacher, temperature).double()
    h_t, h_s = (of.entropy(temperature).double() for of in (teacher, student))
    mean, wrong = weight.mean(), ~student.is_correct
    return Weights(
        mean=mean.item(),
        variation=_variation(weight),
        of_teacher=_variation(h_t),
        of_student=_variation(
            combine_entropies(h_s, torch.ones_like(h_t), student.logits.shape[1])
        ),
        order=_rank_correlation(weight, h_t),
        entropies=_rank_correlation(h_s, h_t),
        effective=(weight.sum() ** 2 / (len(weight) * weight.square().sum())).item(),
        on_errors=(weight[wrong].mean() / mean).item() if wrong.any() else None,
    )


def _variation(x: Tensor) -> float:
    return (x.std() / x.mean()).item()


def _rank_correlation(x: Tensor, y: Tensor) -> float | None:
    if x.min() == x.max() or y.min() == y.max():
        return None
    return float(stats.spearmanr(x, y).statistic)


def weights_result(
    teacher: Samples,
    students: Mapping[str, Samples],
    rows: list[list[str]],
    *,
    temperature: float,
    what: str = "test images",
) -> AnalysisResult:
    """Plot the samples in the plane of both entropies, and the variation of w_EA.

    Args:
        teacher, students: outputs for the same samples.
        rows: rows of panels, see `eakd_det.analysis.figures.panel_rows`; the teacher gets none.
        temperature: softmax temperature of the entropies.
        what: name of the samples, in the plural.
    """
    found = {
        name: measure_weights(student, teacher, temperature=temperature)
        for name, student in students.items()
    }
    summaries = {
        name: f"w varies by {of.variation:.0%}: $H_T$ {of.of_teacher:.0%}, student's factor "
        f"{of.of_student:.0%}"
        for name, of in found.items()
    }
    rows = [kept for row in rows if (kept := [name for name in row if name in students])]
    figure = draw_weights(teacher, students, summaries, rows, temperature=temperature, what=what)
    numbers = {
        "temperature": temperature,
        "samples": len(teacher.labels),
        "students": {name: asdict(of) for name, of in found.items()},
    }
    headers = ["student", "mean w_EA", "varies by", "H_T by", "student's factor by"]
    headers += ["order: w_EA, H_T", "H_S, H_T", "effective samples", "w_EA on errors / mean"]
    table = []
    for name, of in found.items():
        variations = map("{:.1%}".format, (of.variation, of.of_teacher, of.of_student))
        rest = of.order, of.entropies, f"{of.effective:.1%}", of.on_errors
        table.append([name, of.mean, *variations, *rest])
    return AnalysisResult({"weights": (figure, numbers)}, headers, table)
