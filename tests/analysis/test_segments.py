"""eakd_det.analysis.segments."""

import math

import pytest
import torch

from eakd_det.analysis.samples import Samples
from eakd_det.analysis.segments import entropy_segments, paired_difference, proportion

N, C = 47, 5


def random_samples(seed, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(C, (N,), generator=torch.Generator().manual_seed(1))
    return Samples(labels, scale * torch.randn(N, C, generator=generator), torch.zeros(N, 2))


def test_segments_are_those_of_a_slow_reference():
    teacher, student = random_samples(2), random_samples(3)
    entropy = teacher.entropy(3.0)
    order = sorted(range(N), key=lambda i: (entropy[i].item(), i))
    start, found = 0, entropy_segments(entropy, teacher, student)
    assert [s.number for s in found] == [5] * 7 + [4] * 3
    for segment in found:
        part = order[start : start + segment.number]
        start += segment.number
        hits = {
            name: [
                samples.logits[i].tolist().index(max(samples.logits[i])) == samples.labels[i]
                for i in part
            ]
            for name, samples in (("teacher", teacher), ("student", student))
        }
        shares = {name: 100 * sum(of) / len(part) for name, of in hits.items()}
        assert math.isclose(segment.teacher[0], shares["teacher"], abs_tol=1e-9)
        assert math.isclose(segment.student[0], shares["student"], abs_tol=1e-9)
        assert math.isclose(segment.gap[0], shares["teacher"] - shares["student"], abs_tol=1e-9)
        mean = sum(entropy[i].item() for i in part) / len(part)
        assert math.isclose(segment.entropy, mean, rel_tol=1e-5)
    assert start == N
    entropies = [s.entropy for s in found]
    assert entropies == sorted(entropies)


def test_a_student_like_its_teacher_has_no_gap():
    teacher = random_samples(2)
    for segment in entropy_segments(teacher.entropy(1.0), teacher, teacher):
        gap, low, high = segment.gap
        assert gap == 0 and low < 0 < high  # a few images prove no equality
        assert segment.teacher == segment.student


def test_equal_entropies_keep_their_order():
    teacher, student = random_samples(2), random_samples(3)
    (first, *_) = entropy_segments(torch.ones(N), teacher, student)
    assert math.isclose(first.student[0], 100 * student.is_correct[:5].float().mean(), rel_tol=1e-6)


def test_too_few_samples_are_refused():
    few = Samples(torch.tensor([0]), torch.ones(1, C), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="1 samples"):
        entropy_segments(torch.ones(1), few, few)


def test_wilson_s_interval_is_the_published_one():
    """An example of Newcombe (Statistics in Medicine 17, 1998, table I): 81 of 263."""
    share, low, high = proportion(81, 263)
    assert (round(share, 4), round(low, 4), round(high, 4)) == (0.3080, 0.2553, 0.3662)
    assert proportion(0, 10)[:2] == (0, 0) and proportion(0, 10)[2] > 0.2
    assert proportion(10, 10)[::2] == (1, 1)


@pytest.mark.parametrize(
    ("first", "second", "most"), [(0.15, 0.05, 0.97), (0.3, 0.0, 0.97), (0.02, 0.02, 1.0)]
)
def test_paired_intervals_cover_the_truth(first, second, most):
    """Drawn 4000 times, about 95 % hold the true difference; more where hits are rare."""
    number = 50
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(4000, number, generator=generator)
    alone = (draws < first).sum(dim=1), (draws > 1 - second).sum(dim=1)
    covered = 0
    for a, b in zip(*(x.tolist() for x in alone), strict=True):
        value, low, high = paired_difference(a, b, number)
        assert -1 <= low <= value <= high <= 1
        covered += low <= first - second <= high
    assert 0.93 < covered / 4000 <= most
