"""Calibration of classifiers before and after temperature scaling.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv 1706.04599. N counts
samples, C classes.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from eakd_det.utils.errors import UserError

from .calibration_figures import draw_reliability
from .reliability import NUM_BINS, Reliability, ece_by_chance, measure_reliability
from .results import AnalysisResult
from .samples import Samples

logger = logging.getLogger(__name__)

LOWEST, HIGHEST = 0.05, 20.0  # bounds of a fitted temperature
_HEADERS = [
    *("network", "top-1 (%)", "NLL", "ECE (%)", "by chance (%)", "temperature (of halves)"),
    *("NLL after", "ECE after (%)", "by chance after (%)"),
]
_AT_BOUND = (
    "%s: the temperature of a half of the %s is at a bound of the fit (%g where all of them are "
    "classified correctly): NLL and ECE after the scaling are no measure of its calibration."
)


@dataclass(frozen=True)
class Quality:
    """Quality of the probabilities of N samples.

    Attributes:
        nll: mean negative log-likelihood, nats.
        reliability: of the top-1 confidence.
        by_chance: mean ECE of a calibrated network with these confidences, percent.
    """

    nll: float
    reliability: Reliability
    by_chance: float


@dataclass(frozen=True)
class Calibration:
    """Quality of a network's probabilities, and of its logits over a temperature.

    Attributes:
        temperature: fitted on all samples.
        of_halves: fitted on each half of the samples.
        before: of the logits as they are.
        after: of the logits of each half, over the temperature fitted on the other half.
    """

    temperature: float
    of_halves: tuple[float, float]
    before: Quality
    after: Quality


def measure_calibration(samples: Samples) -> Calibration:
    """Fit a temperature to a network's logits, and measure its effect on samples held out of it.

    Raises:
        UserError: there are fewer samples than bins.
    """
    logits, labels = samples.logits.double(), samples.labels
    if len(labels) < NUM_BINS:
        raise UserError(f"{len(labels)} samples are too few for {NUM_BINS} bins.")
    is_second = second_half(labels)
    first, second = (fit_temperature(logits[x], labels[x]) for x in (~is_second, is_second))
    of_other = torch.tensor([second, first], dtype=logits.dtype)[is_second.long()]
    return Calibration(
        fit_temperature(logits, labels),
        (first, second),
        before=_quality(logits, labels),
        after=_quality(logits / of_other[:, None], labels),
    )


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature of the lowest negative log-likelihood, from LOWEST to HIGHEST.

    The negative log-likelihood is convex in 1 / temperature, so that there is one minimum. If every
    sample is classified correctly it is at LOWEST, which is returned without a search: the values
    underflow to 0 before.

    Args:
        logits: (N, C).
        labels: (N,).
    """
    logits = logits.double()
    of_label = logits.gather(1, labels[:, None])
    if bool((of_label >= logits).all()):
        return LOWEST

    def nll(log_temperature: float) -> float:
        return F.cross_entropy(logits / math.exp(log_temperature), labels).item()

    bounds = math.log(LOWEST), math.log(HIGHEST)
    found = minimize_scalar(nll, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return math.exp(found.x)


def is_at_bound(temperature: float) -> bool:
    """Return whether a fitted temperature is LOWEST or HIGHEST, so that the best lies beyond."""
    return not 1.001 * LOWEST < temperature < 0.999 * HIGHEST


def second_half(labels: Tensor) -> Tensor:
    """Return (N,) bool, a fixed random half of the samples of each class, up to one sample."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    order = order[labels[order].argsort(stable=True)]
    is_second = torch.zeros(len(labels), dtype=torch.bool)
    is_second[order[1::2]] = True
    return is_second


def _quality(logits: Tensor, labels: Tensor) -> Quality:
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    reliability = measure_reliability(confidence, predicted == labels)
    nll = F.cross_entropy(logits, labels).item()
    return Quality(nll, reliability, ece_by_chance(confidence))


def calibration_result(
    calibrations: Mapping[str, Calibration],
    top1: Mapping[str, float],
    rows: list[list[str]],
    *,
    what: str = "test images",
) -> AnalysisResult:
    """Draw the reliability diagrams of networks, and list their NLL, ECE and temperature.

    A warning names the networks of which a half has its temperature at a bound.

    Args:
        calibrations: network -> its calibration.
        top1: network -> its accuracy, percent.
        rows: rows of panels, see `eakd_det.analysis.figures.panel_rows`.
        what: name of the samples, in the plural.
    """
    for name, of in calibrations.items():
        if any(map(is_at_bound, of.of_halves)):
            logger.warning(_AT_BOUND, name, what, LOWEST)
    panels = {
        name: {
            f"as trained: {_summary(of.before)}": of.before.reliability,
            f"temperature {of.temperature:.3g}: {_summary(of.after)}": of.after.reliability,
        }
        for name, of in calibrations.items()
    }
    number = int(sum(next(iter(calibrations.values())).before.reliability.number))
    title = (
        f"Calibration on {number} {what}, before and after temperature scaling\n"
        "(each half by the temperature fitted on the other half; bars: 95 % intervals)"
    )
    figure = draw_reliability(panels, rows, title=title, accuracy="accuracy", what=what)
    numbers = {
        "samples": number,
        "bins": NUM_BINS,
        "networks": {name: _numbers(of, top1[name]) for name, of in calibrations.items()},
    }
    table = [_row(name, top1[name], of) for name, of in calibrations.items()]
    return AnalysisResult({"calibration": (figure, numbers)}, _HEADERS, table)


def _row(name: str, top1: float, of: Calibration) -> list[Any]:
    before, after = ([x.nll, x.reliability.ece, x.by_chance] for x in (of.before, of.after))
    temperatures = "{:.3f} ({:.3f}, {:.3f})".format(of.temperature, *of.of_halves)
    return [name, top1, *before, temperatures, *after]


def _summary(quality: Quality) -> str:
    return f"ECE {quality.reliability.ece:.1f} %, NLL {quality.nll:.3f}"


def _numbers(calibration: Calibration, top1: float) -> dict[str, Any]:
    of_qualities = {
        name: {
            "nll": of.nll,
            "ece": of.reliability.ece,
            "ece_by_chance": of.by_chance,
            "bins": of.reliability.numbers(),
        }
        for name, of in (("before", calibration.before), ("after", calibration.after))
    }
    temperatures = {
        "temperature": calibration.temperature,
        "temperature_of_halves": calibration.of_halves,
        "is_at_bound": is_at_bound(calibration.temperature),
        "is_at_bound_of_halves": [is_at_bound(x) for x in calibration.of_halves],
    }
    return {"top1": top1, **temperatures, **of_qualities}
