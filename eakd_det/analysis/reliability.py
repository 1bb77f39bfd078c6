"""Expected calibration error, and the bins of a reliability diagram.

Guo et al., ICML 2017, arXiv 1706.04599, section 2. N counts samples, M bins.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

NUM_BINS = 15
NUM_DRAWS = 100  # of `ece_by_chance`


@dataclass(frozen=True)
class Reliability:
    """Bins of samples of similar confidence; those without samples are left out.

    Attributes:
        number: number of samples of each bin.
        correct: number of correct ones among them.
        confidence: mean confidence.
        low: lower end of the bin; its width is 1 / NUM_BINS.
    """

    number: list[int]
    correct: list[int]
    confidence: list[float]
    low: list[float]

    @property
    def ece(self) -> float:
        """Expected calibration error, percent: mean |accuracy - confidence|."""
        bins = zip(self.number, self.correct, self.confidence, strict=True)
        gaps = (abs(right - number * confidence) for number, right, confidence in bins)
        return 100 * sum(gaps) / sum(self.number) if self.number else 0.0

    def numbers(self) -> list[dict[str, float]]:
        """Return the bins for a JSON file."""
        names, columns = zip(*vars(self).items(), strict=True)
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def measure_reliability(confidence: Tensor, is_correct: Tensor) -> Reliability:
    """Count samples in NUM_BINS bins of equal width; bin m is (m / M, (m + 1) / M].

    Args:
        confidence: (N,) probabilities.
        is_correct: (N,) bool.
    """
    edges = torch.arange(1, NUM_BINS, dtype=confidence.dtype) / NUM_BINS
    places = torch.bucketize(confidence, edges)
    number = places.bincount(minlength=NUM_BINS)
    correct = places.bincount(is_correct.double(), minlength=NUM_BINS).long()
    mean = places.bincount(confidence.double(), minlength=NUM_BINS) / number
    known = number > 0
    low = (torch.arange(NUM_BINS).double() / NUM_BINS)[known].tolist()
    return Reliability(number[known].tolist(), correct[known].tolist(), mean[known].tolist(), low)


def ece_by_chance(confidence: Tensor) -> float:
    """Return the mean ECE, percent, of samples that are correct as often as their confidence.

    It is above 0, since the share of correct samples in a bin is random, and falls with N. The
    draws are those of consistency resampling (Bröcker and Smith, Weather and Forecasting 2007).

    Args:
        confidence: (N,) probabilities.
    """
    generator = torch.Generator().manual_seed(0)
    draws = (
        torch.rand(len(confidence), generator=generator, dtype=confidence.dtype) < confidence
        for _ in range(NUM_DRAWS)
    )
    return sum(measure_reliability(confidence, draw).ece for draw in draws) / NUM_DRAWS
