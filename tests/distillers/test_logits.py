import pytest
import torch
from torch.testing import assert_close

from eakd_det.distillers import DISTILLERS, LogitDistiller
from eakd_det.losses import (
    bernoulli_dist_loss,
    bernoulli_kd_loss,
    dkd_loss,
    forward_kl,
    kd_loss,
    standardize,
)

from .batches import make_batch, make_pair


def test_methods_call_their_losses():
    pair = make_pair(sample_weight=torch.rand(7))
    student, teacher, labels = pair.student_logits, pair.teacher_logits, pair.labels
    kd = DISTILLERS["KD"](make_batch(pair), temperature=2.0)
    expected = kd_loss(student, teacher, temperature=2.0, weight=pair.sample_weight)
    assert_close(kd, {"": expected})
    dkd = DISTILLERS["DKD"](make_batch(make_pair()), alpha=0.5, beta=3.0)
    assert_close(dkd, {"": dkd_loss(student, teacher, labels, alpha=0.5, beta=3.0)})


@pytest.mark.parametrize(("name", "loss"), [("KD", kd_loss), ("DKD", dkd_loss)])
def test_standardize(name, loss):
    pair = make_pair()
    labels = [pair.labels] if name == "DKD" else []
    logits = map(standardize, (pair.student_logits, pair.teacher_logits))
    got = DISTILLERS[name](make_batch(pair), standardize=True, temperature=2.0)
    assert_close(got, {"": loss(*logits, *labels, temperature=2.0)})


def test_each_pair_has_its_loss():
    pairs = [make_pair(seed, suffix=f"_stage{seed}") for seed in range(3)]
    losses = DISTILLERS["DKD"](make_batch(*pairs))
    assert list(losses) == ["_stage0", "_stage1", "_stage2"]
    alone = [DISTILLERS["DKD"](make_batch(pair)) for pair in pairs]
    assert losses == {name: loss for one in alone for name, loss in one.items()}


def test_a_sigmoid_has_its_own_loss_and_normalizer():
    pair = make_pair(sigmoid=True, normalizer=2.5)
    loss = DISTILLERS["KD"](make_batch(pair), temperature=1.0)[""]
    each = bernoulli_kd_loss(
        pair.student_logits, pair.teacher_logits, temperature=1.0, reduction="none"
    )
    assert_close(loss, each.sum() / 2.5)


def test_a_mean_over_the_samples_has_no_other_divisor():
    pair = make_pair(sigmoid=True, normalizer=2.5, sample_weight=torch.rand(7))
    loss = DISTILLERS["DIST"](make_batch(pair))[""]
    logits = pair.student_logits, pair.teacher_logits
    assert_close(loss, bernoulli_dist_loss(*logits, weight=pair.sample_weight))
    pair.normalizer = None
    assert DISTILLERS["DIST"](make_batch(pair))[""].shape == (7,)


def test_without_a_normalizer_the_losses_of_the_samples_stay():
    pair = make_pair(normalizer=None, sample_weight=torch.rand(7))
    loss = DISTILLERS["KD"](make_batch(pair))[""]
    logits, weight = (pair.student_logits, pair.teacher_logits), pair.sample_weight
    assert torch.equal(loss, kd_loss(*logits, weight=weight, reduction="none"))


def test_options_are_those_of_the_signature():
    options = {"alpha": 1.0, "beta": 8.0, "temperature": 4.0, "standardize": False}
    assert DISTILLERS["DKD"].defaults == options
    assert LogitDistiller(forward_kl, can_standardize=False).defaults == {}
