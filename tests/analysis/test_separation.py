"""eakd_det.analysis.separation."""

import pytest
import torch
from sklearn.metrics import calinski_harabasz_score

from eakd_det.analysis.samples import Samples
from eakd_det.analysis.separation import calinski_harabasz, embed, highest, separate


def clouds(distance, number=40):
    """Three classes of so many samples each, at a distance, in 8 dimensions."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(number)
    features = torch.randn(3 * number, 8, generator=generator)
    features[:, :3] += distance * torch.eye(3)[labels]
    logits = torch.randn(3 * number, 3, generator=generator)
    return Samples(labels, logits, features)


def by_hand(features, labels):
    """Dispersion between the classes over that within, each by its degrees of freedom."""
    mean, between, within = features.mean(dim=0), 0.0, 0.0
    classes = labels.unique()
    for label in classes:
        of = features[labels == label]
        between += len(of) * ((of.mean(dim=0) - mean) ** 2).sum().item()
        within += ((of - of.mean(dim=0)) ** 2).sum().item()
    k, n = len(classes), len(labels)
    return between / (k - 1) / (within / (n - k))


def test_the_index_is_scikit_learn_s_and_the_definition():
    samples = clouds(2.0)
    index = calinski_harabasz(samples.features, samples.labels)
    theirs = calinski_harabasz_score(samples.features.numpy(), samples.labels.numpy())
    assert index == pytest.approx(theirs, rel=1e-5)  # theirs here from float32
    assert index == pytest.approx(by_hand(samples.features.double(), samples.labels), rel=1e-9)


def test_the_index_grows_with_the_distance_of_the_classes():
    indices = [separate(clouds(d), None, temperature=1.0).index for d in (0.0, 2.0, 8.0)]
    assert indices == sorted(indices) and indices[2] > 10 * indices[0]


def test_what_is_no_clustering_has_no_index():
    samples = clouds(2.0, number=4)
    for labels in (torch.zeros(12, dtype=torch.long), torch.arange(12)):
        assert calinski_harabasz(samples.features, labels) is None
        assert separate(Samples(labels, samples.logits, samples.features), None, temperature=1.0)


def test_clusters_stay_clusters_in_the_plane_and_a_seed_gives_one_picture():
    samples = clouds(12.0)
    points = embed(samples.features, seed=3)
    assert points.shape == (120, 2) and points.equal(embed(samples.features, seed=3))
    distances = torch.cdist(points, points)
    distances.fill_diagonal_(torch.inf)
    assert samples.labels[distances.argmin(dim=1)].equal(samples.labels)


def test_few_samples_are_embedded_too():
    assert embed(torch.randn(4, 3), seed=0).shape == (4, 2)


def test_marked_samples_are_those_of_highest_entropy_and_weight():
    student, teacher = clouds(2.0), clouds(3.0)
    teacher.logits.copy_(teacher.logits.flip(0))
    found = separate(student, teacher, temperature=2.0)
    for marked, values in [
        (found.highest_entropy, student.entropy(2.0)),
        (found.highest_weight, student.weight(teacher, 2.0)),
    ]:
        assert marked.sum() == 6  # 5 % of 120
        assert values[marked].min() >= values[~marked].max()
    assert not found.highest_entropy.equal(found.highest_weight)
    assert separate(student, None, temperature=2.0).highest_weight is None
    assert found.top1 == pytest.approx(100 * student.is_correct.float().mean().item())


def test_at_least_one_sample_is_marked():
    assert highest(torch.tensor([1.0, 3.0, 2.0])).tolist() == [False, True, False]
