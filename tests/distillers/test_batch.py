import math

import torch
from torch.testing import assert_close

from eakd_det.losses import bernoulli_entropy, combine_entropies, entropy, entropy_weight

from .batches import make_batch, make_pair


def test_entropies_of_a_softmax():
    pair = make_pair()
    student, teacher = pair.entropies(2.0)
    assert torch.equal(student, entropy(pair.student_logits, temperature=2.0))
    assert torch.equal(teacher, entropy(pair.teacher_logits, temperature=2.0))
    assert (pair.num_outcomes, pair.num_classes) == (4, 3)
    weight = combine_entropies(student, teacher, pair.num_outcomes)
    expected = entropy_weight(pair.student_logits, pair.teacher_logits, temperature=2.0)
    assert torch.equal(weight, expected)


def test_entropies_of_a_sigmoid():
    pair = make_pair(sigmoid=True)
    student, teacher = pair.entropies(2.0)
    assert torch.equal(student, bernoulli_entropy(pair.student_logits, temperature=2.0))
    assert torch.equal(teacher, bernoulli_entropy(pair.teacher_logits, temperature=2.0))
    assert (pair.num_outcomes, pair.num_classes) == (2, 4)
    weight = combine_entropies(student, teacher, pair.num_outcomes)
    assert_close(weight, teacher * (1 + student / math.log(2)) / 2)


def test_without_background_every_logit_is_a_class():
    pair = make_pair(has_background=False)
    assert (pair.num_outcomes, pair.num_classes) == (4, 4)


def test_image_weight_is_the_mean_of_its_samples():
    pair = make_pair(sample_weight=torch.tensor([1.0, 2, 6, 1, 1, 1, 5]))
    assert_close(make_batch(pair).image_weight(), torch.tensor([3.0, 0, 2]))
    other = make_pair(sample_weight=torch.ones(7))
    assert_close(make_batch(pair, other).image_weight(), torch.tensor([2.0, 0, 1.5]))
    assert make_batch(make_pair()).image_weight() is None
    weights = torch.tensor([1.0, 2, 6, 1, 1, 1, 5])  # the fourth is background
    for background, expected in [(1.0, [3.0, 1, 7 / 3]), (0.0, [3.0, 0, 7 / 3])]:
        weights[3] = background
        pair = make_pair(sample_weight=weights, background_weight=background)
        assert_close(make_batch(pair).image_weight(), torch.tensor(expected))
    assert make_batch().image_weight() is None
