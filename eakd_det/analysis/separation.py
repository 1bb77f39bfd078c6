"""How well a network's features tell the classes apart (EA-KD, figures 2b, B1b, B3).

N counts samples, D features.
"""

from dataclasses import dataclass

import torch
from sklearn.manifold import TSNE
from sklearn.metrics import calinski_harabasz_score
from torch import Tensor

from .samples import Samples

MARKED_SHARE = 0.05  # of the samples, those of the highest entropy or weight
PERPLEXITY = 30.0  # scikit-learn's


@dataclass(frozen=True)
class Separation:
    """A network's features in the plane.

    Attributes:
        points: (N, 2), t-SNE.
        labels: (N,), the true classes.
        index: the Calinski-Harabasz index of the features (not of the points); None where there is
            none.
        top1: accuracy, percent.
        highest_entropy: (N,) bool: of the samples of the network's own highest entropies.
        highest_weight: (N,) bool: of the highest w_EA beside the teacher; None of a teacher, and
            without one.
    """

    points: Tensor
    labels: Tensor
    index: float | None
    top1: float
    highest_entropy: Tensor
    highest_weight: Tensor | None


def separate(
    samples: Samples, teacher: Samples | None, *, temperature: float, seed: int = 0
) -> Separation:
    """Features in the plane, how distinct the classes are, and the samples that count most.

    Args:
        teacher: by which a student's samples are weighted.
        temperature: of the entropies.
        seed: of t-SNE.
    """
    weight = None if teacher is None else samples.weight(teacher, temperature)
    return Separation(
        embed(samples.features, seed),
        samples.labels,
        calinski_harabasz(samples.features, samples.labels),
        100 * samples.is_correct.float().mean().item(),
        highest(samples.entropy(temperature)),
        None if weight is None else highest(weight),
    )


def embed(features: Tensor, seed: int) -> Tensor:
    """(N, 2), scikit-learn's t-SNE from (N, D), started from their principal components."""
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    tsne = TSNE(init="pca", perplexity=perplexity, random_state=seed)
    return torch.from_numpy(tsne.fit_transform(features.double().numpy()))


def calinski_harabasz(features: Tensor, labels: Tensor) -> float | None:
    """The Calinski-Harabasz index of the true classes as clusters of (N, D) features.

    It is the dispersion between the classes over that within them, each by its degrees of freedom.
    It grows with N, so that it compares networks on the same samples alone. A single class has
    none, nor have classes of one sample each.
    """
    if not 1 < len(labels.unique()) < len(labels):
        return None
    return float(calinski_harabasz_score(features.double().numpy(), labels.numpy()))


def highest(values: Tensor) -> Tensor:
    """(N,) bool: the share MARKED_SHARE (at least one) of (N,) values that is highest."""
    marked = torch.zeros(len(values), dtype=torch.bool)
    marked[values.topk(max(1, round(MARKED_SHARE * len(values)))).indices] = True
    return marked
