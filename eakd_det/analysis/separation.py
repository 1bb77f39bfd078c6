"""Separation of the classes in a network's features (EA-KD, figures 2b, B1b, B3).

N counts samples, D features.
"""

from dataclasses import dataclass

import torch
from sklearn.manifold import TSNE
from sklearn.metrics import calinski_harabasz_score
from torch import Tensor

from .samples import Samples

MARKED_SHARE = 0.05  # fraction of the samples, of the highest entropy or weight, to be marked
PERPLEXITY = 30.0  # scikit-learn's default


@dataclass(frozen=True)
class Separation:
    """Features of a network in the plane, and how well they separate the classes.

    Attributes:
        points: (N, 2), t-SNE.
        labels: (N,), the true classes.
        index: Calinski-Harabasz index of the features (not of the points); None if undefined.
        top1: accuracy, percent.
        highest_entropy: (N,) bool, samples of the network's highest entropies.
        highest_weight: (N,) bool, samples of the student's highest w_EA; None for a teacher, or
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
    """Embed features in the plane, measure the separation, and mark the highest samples.

    Args:
        samples: outputs of the network.
        teacher: outputs of its teacher, for w_EA; None for a network without a teacher.
        temperature: softmax temperature of the entropies.
        seed: seed of t-SNE.
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
    """Embed (N, D) features as (N, 2) with scikit-learn's t-SNE, initialised with their PCA."""
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    tsne = TSNE(init="pca", perplexity=perplexity, random_state=seed)
    return torch.from_numpy(tsne.fit_transform(features.double().numpy()))


def calinski_harabasz(features: Tensor, labels: Tensor) -> float | None:
    """Calinski-Harabasz index of the true classes as clusters of (N, D) features.

    It is the dispersion between the classes over that within them, each divided by its degrees of
    freedom. It grows with N, so that networks must be compared on the same samples.

    Returns:
        The index; None for a single class, or if each sample has a class of its own.
    """
    if not 1 < len(labels.unique()) < len(labels):
        return None
    return float(calinski_harabasz_score(features.double().numpy(), labels.numpy()))


def highest(values: Tensor) -> Tensor:
    """Mark the highest MARKED_SHARE, at least one, of (N,) values; (N,) bool."""
    marked = torch.zeros(len(values), dtype=torch.bool)
    marked[values.topk(max(1, round(MARKED_SHARE * len(values)))).indices] = True
    return marked
