import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import (
    entropy_weight,
    forward_kl,
    jensen_shannon,
    reverse_kl,
    skewed_forward_kl,
    skewed_reverse_kl,
    symmetric_kl,
)

from .contract import (
    HALVES,
    TOLERANCES,
    SampleLossContract,
    assert_matches,
    check_autocast,
    make_logits,
    one_hot_logits,
    softmax,
)
from .divergence_forms import FORMS, make_batch, slow_tokens

each_form = pytest.mark.parametrize(
    ("loss", "form"), [pytest.param(*pair, id=name) for name, pair in FORMS.items()]
)


@pytest.mark.parametrize("name", FORMS)
class TestAsLossOfSamples(SampleLossContract):
    """(N, V) logits, every token of which counts, keep the contract of all losses on logits."""

    @pytest.fixture(autouse=True)
    def choose(self, name):
        self.divergence, self.form = FORMS[name]

    def loss(self, student_logits, teacher_logits, labels, **options):
        return self.divergence(student_logits, teacher_logits, labels, **options)

    def row_loss(self, student_logits, teacher_logits, label):
        return self.form(softmax(teacher_logits), softmax(student_logits))

    # The contract speaks of samples; here a message speaks of tokens.
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"weight": torch.ones(6, 1)}, r"weight .* token of \(6,\), got shape \(6, 1\)"),
            ({"weight": torch.ones(5)}, r"weight .* token of \(6,\), got shape \(5,\)"),
            ({"reduction": "sum"}, "reduction .* got 'sum'"),
        ],
    )
    def test_refuses(self, inputs, options, message):
        with pytest.raises(ValueError, match=message):
            self.loss(*inputs, **options)


@each_form
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_matches_the_slow_form_on_tokens_that_count(loss, form, dtype):
    student, teacher, labels = make_batch(dtype)
    student.requires_grad_()
    exact_student = student.detach().double().requires_grad_()
    exact = slow_tokens(form, exact_student, teacher.double(), labels)
    output = loss(student, teacher, labels, reduction="none")
    assert output.shape == labels.shape
    assert_matches(output, exact.detach())
    mean = loss(student, teacher, labels)
    assert_matches(mean, exact.detach().sum() / 4)
    mean.backward()
    (exact.sum() / 4).backward()
    assert_matches(student.grad, exact_student.grad)


@each_form
def test_gradcheck_of_a_batch(loss, form):
    student, teacher, labels = make_batch()
    weight = entropy_weight(student, teacher)
    assert torch.autograd.gradcheck(
        lambda z: loss(z, teacher, labels, weight=weight), student.requires_grad_()
    )


@each_form
def test_ignored_tokens_are_never_read(loss, form):
    student, teacher, labels = make_batch()
    expected = loss(student, teacher, labels)
    student[labels == -100], teacher[labels == -100] = torch.nan, torch.inf
    student.requires_grad_()
    actual = loss(student, teacher, labels)
    actual.backward()
    assert torch.equal(actual, expected)
    assert student.grad.isfinite().all()
    assert not student.grad[labels == -100].any()


@each_form
def test_two_rows_equal_two_micro_batches(loss, form):
    """With the number of the whole step, parts of different lengths add up to the whole."""
    student, teacher, labels = make_batch(torch.float32)
    whole, parts = (student.clone().requires_grad_() for _ in range(2))
    loss(whole, teacher, labels).backward()
    total = 0
    for row, length in [(0, 4), (1, 3), (2, 5)]:
        cut = (slice(row, row + 1), slice(None, length))
        count = torch.tensor(4)  # as a trainer gives it
        part = loss(parts[cut], teacher[cut], labels[cut], num_tokens=count)
        part.backward()
        total += part.detach()
    assert_close(parts.grad, whole.grad, atol=1e-6, rtol=1e-5)
    assert_close(total, loss(student, teacher, labels), atol=1e-6, rtol=1e-5)


@each_form
@pytest.mark.parametrize("num_tokens", [None, 0, 7, torch.tensor(0)])
def test_no_token_gives_a_zero_in_the_graph(loss, form, num_tokens):
    student, teacher, labels = make_batch()
    student.requires_grad_()
    value = loss(student, teacher, torch.full_like(labels, -100), num_tokens=num_tokens)
    assert value == 0
    value.backward()
    assert not student.grad.any()


@each_form
@pytest.mark.parametrize("side", ["both", "student", "teacher"])
def test_padded_vocabulary(loss, form, side):
    """-inf on both sides changes nothing; on one side the value and the gradients stay finite."""
    student, teacher, labels = make_batch()
    padding = torch.full((3, 5, 2), -torch.inf, dtype=torch.float64)
    other = make_logits((3, 5, 2), 3)
    wide_student = torch.cat([student, other if side == "teacher" else padding], dim=-1)
    wide_teacher = torch.cat([teacher, other if side == "student" else padding], dim=-1)
    wide_student.requires_grad_()
    weight = entropy_weight(wide_student, wide_teacher)
    assert weight.isfinite().all()
    value = loss(wide_student, wide_teacher, labels, weight=weight)
    value.backward()
    assert value.isfinite()
    assert wide_student.grad.isfinite().all()
    if side == "both":
        exact = student.requires_grad_()
        loss(exact, teacher, labels, weight=weight).backward()
        assert_close(wide_student.grad[..., :-2], exact.grad)
        assert not wide_student.grad[..., -2:].any()


@each_form
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_saturated_logits(loss, form, dtype):
    student = one_hot_logits(5, 81, dtype).requires_grad_()
    value = loss(student, one_hot_logits(3, 81, dtype), torch.tensor([3]))
    value.backward()
    assert value.isfinite() and value > 0
    assert student.grad.isfinite().all()


@each_form
@pytest.mark.parametrize("dtype", HALVES)
def test_autocast_of_a_batch(loss, form, dtype):
    labels = torch.tensor([-100, 3, 4, -100, 0])
    check_autocast(lambda student, teacher: loss(student, teacher, labels), dtype)


def test_limits():
    batch = make_batch()
    forward, reverse = forward_kl(*batch), reverse_kl(*batch)
    assert_close(skewed_forward_kl(*batch, alpha=0.0), forward)
    assert_close(skewed_reverse_kl(*batch, alpha=0.0), reverse)
    assert_close(skewed_forward_kl(*batch, alpha=1e-9), forward, rtol=1e-6, atol=0)
    assert_close(symmetric_kl(*batch, alpha=0.0), forward)
    assert_close(symmetric_kl(*batch, alpha=1.0), reverse)
    # Over its small share, the divergence tends to a KL (GKD, section 2).
    assert_close(jensen_shannon(*batch, beta=1e-7) / 1e-7, forward, rtol=1e-4, atol=0)
    assert_close(jensen_shannon(*batch, beta=1 - 1e-7) / 1e-7, reverse, rtol=1e-4, atol=0)


@pytest.mark.parametrize("loss", [skewed_forward_kl, skewed_reverse_kl, symmetric_kl])
def test_alpha_changes_the_value(loss):
    assert loss(*make_batch(), alpha=0.2) != loss(*make_batch())


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (skewed_forward_kl, {"alpha": 1.0}, "alpha must be at least 0 and below 1, got 1.0"),
        (skewed_reverse_kl, {"alpha": -0.1}, "alpha must be at least 0 and below 1"),
        (symmetric_kl, {"alpha": 1.5}, "alpha must be at least 0 and at most 1"),
        (jensen_shannon, {"beta": 0.0}, "beta must be above 0 and below 1"),
    ],
)
def test_refuses_options(loss, options, message):
    with pytest.raises(ValueError, match=message):
        loss(*make_batch(), **options)


def test_refuses_shapes():
    student, teacher, labels = make_batch()
    with pytest.raises(ValueError, match=r"\(3, 5, 11\) and the teacher's \(3, 5, 10\)"):
        forward_kl(student, teacher[..., :-1], labels)
    with pytest.raises(ValueError, match=r"labels must .* of \(3, 5\), got shape \(3, 4\)"):
        forward_kl(student, teacher, labels[:, :-1])
