import math

import pytest
import torch

from eakd_det.distillers.methods import DISTILLERS, EA_MODES, Comparison, Head, scalar_defaults
from eakd_det.losses import (
    ReviewFusion,
    bernoulli_entropy,
    bernoulli_kd_loss,
    combine_entropies,
    dkd_loss,
    entropy,
    entropy_weight,
    hcl_loss,
    kd_loss,
    standardize,
)


def make_head(seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 7, 4, generator=generator)
    settings = {
        "labels": torch.arange(7) % 4,
        "images": torch.tensor([0, 0, 0, 2, 2, 2, 2]),
        "normalizer": 7.0,
    }
    return Head(student, teacher, **{**settings, **options})


def compare(*heads):
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(2, 3, 5, 4, 4, generator=generator)
    return Comparison([maps[0]], [maps[1]], list(heads))


def test_methods_call_their_losses():
    head = make_head(weight=torch.rand(7))
    student, teacher, labels = head.student_logits, head.teacher_logits, head.labels
    kd = DISTILLERS["KD"](compare(head), temperature=2.0)
    expected = kd_loss(student, teacher, temperature=2.0, weight=head.weight)
    torch.testing.assert_close(kd, {"": expected})
    dkd = DISTILLERS["DKD"](compare(make_head()), alpha=0.5, beta=3.0)
    expected = dkd_loss(student, teacher, labels, alpha=0.5, beta=3.0)
    torch.testing.assert_close(dkd, {"": expected})


@pytest.mark.parametrize(("name", "loss"), [("KD", kd_loss), ("DKD", dkd_loss)])
def test_standardize(name, loss):
    head = make_head()
    labels = [head.labels] if name == "DKD" else []
    logits = map(standardize, (head.student_logits, head.teacher_logits))
    got = DISTILLERS[name](compare(head), standardize=True, temperature=2.0)
    torch.testing.assert_close(got, {"": loss(*logits, *labels, temperature=2.0)})


def test_each_head_has_its_loss():
    heads = [make_head(seed, suffix=f"_stage{seed}") for seed in range(3)]
    losses = DISTILLERS["DKD"](compare(*heads))
    assert list(losses) == ["_stage0", "_stage1", "_stage2"]
    alone = [DISTILLERS["DKD"](compare(head)) for head in heads]
    assert losses == {name: loss for one in alone for name, loss in one.items()}


def test_a_sigmoid_has_its_own_loss_and_normalizer():
    head = make_head(sigmoid=True, normalizer=2.5)
    loss = DISTILLERS["KD"](compare(head), temperature=1.0)[""]
    each = bernoulli_kd_loss(
        head.student_logits, head.teacher_logits, temperature=1.0, reduction="none"
    )
    torch.testing.assert_close(loss, each.sum() / 2.5)


def test_reviewkd():
    comparison = compare(make_head(weight=torch.rand(7)))
    helper = DISTILLERS["REVIEWKD"].build_helper([5], [5])
    assert isinstance(helper, ReviewFusion)
    loss = DISTILLERS["REVIEWKD"](comparison, helper=helper)
    fused = helper(comparison.student_features)
    weight = comparison.image_weight()
    expected = hcl_loss(fused, comparison.teacher_features, weight=weight)
    assert torch.equal(loss[""], expected)


def test_image_weight_is_the_mean_of_its_samples():
    head = make_head(weight=torch.tensor([1.0, 2, 6, 1, 1, 1, 5]))
    torch.testing.assert_close(compare(head).image_weight(), torch.tensor([3.0, 0, 2]))
    other = make_head(weight=torch.ones(7))
    torch.testing.assert_close(compare(head, other).image_weight(), torch.tensor([2.0, 0, 1.5]))
    assert compare(make_head()).image_weight() is None
    assert compare().image_weight() is None


def test_entropies_of_a_softmax():
    head = make_head()
    student, teacher = head.entropies(2.0)
    assert torch.equal(student, entropy(head.student_logits, temperature=2.0))
    assert torch.equal(teacher, entropy(head.teacher_logits, temperature=2.0))
    assert (head.num_outcomes, head.background) == (4, 3)
    weight = combine_entropies(student, teacher, head.num_outcomes)
    expected = entropy_weight(head.student_logits, head.teacher_logits, temperature=2.0)
    assert torch.equal(weight, expected)


def test_entropies_of_a_sigmoid():
    head = make_head(sigmoid=True)
    student, teacher = head.entropies(2.0)
    assert torch.equal(student, bernoulli_entropy(head.student_logits, temperature=2.0))
    assert torch.equal(teacher, bernoulli_entropy(head.teacher_logits, temperature=2.0))
    assert (head.num_outcomes, head.background) == (2, 4)
    weight = combine_entropies(student, teacher, head.num_outcomes)
    torch.testing.assert_close(weight, teacher * (1 + student / math.log(2)) / 2)


def test_modes():
    student, teacher = make_head().entropies(2.0)
    full = EA_MODES["full"](student, teacher, 4, 5.0)
    assert torch.equal(full, combine_entropies(student, teacher, 4, 5.0))
    assert torch.equal(EA_MODES["teacher"](student, teacher, 4, 5.0), teacher)
    matched = EA_MODES["matched"](student, teacher, 4, 5.0)
    torch.testing.assert_close(matched, torch.full_like(full, full.mean().item()))


@pytest.mark.parametrize("mode", EA_MODES)
def test_weights_are_constants(mode):
    head = make_head()
    head.student_logits.requires_grad_()
    head.teacher_logits.requires_grad_()
    assert not EA_MODES[mode](*head.entropies(2.0), 4, None).requires_grad


@pytest.mark.parametrize("mode", EA_MODES)
def test_no_sample(mode):
    assert EA_MODES[mode](torch.zeros(0), torch.zeros(0), 4, None).shape == (0,)


def test_scalar_defaults():
    def function(a, b=1, *, c=2, d=3.0, e=None):
        pass

    assert scalar_defaults(function, leave_out=("e",)) == {"c": 2, "d": 3.0}
