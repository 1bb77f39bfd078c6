import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import entropy_weight, nkd_loss
from tests.golden import PRECISIONS, golden_case

from .contract import (
    HALVES,
    assert_matches,
    check_against_rows,
    check_autocast,
    each_shape_and_dtype,
    make_labels,
    make_logits,
    one_hot_logits,
    softmax,
)

CASES = ["in1k_t1", "cifar_t3", "small", "roi", "n1", "two_classes", "confident"]
OPTIONS = {"gamma": 3.5, "temperature": 2.5}


def _row_loss(student, teacher, label):
    q, p = softmax(student), softmax(teacher)
    rest = torch.arange(len(student)) != label
    q_rest, p_rest = (softmax(z[rest], 2.5) for z in (student, teacher))
    return -p[label] * q[label].log() - 3.5 * 2.5**2 * (p_rest * q_rest.log()).sum()


@pytest.fixture
def inputs():
    student = make_logits((6, 5), 1).requires_grad_()
    return student, make_logits((6, 5), 2), make_labels((6, 5))


@each_shape_and_dtype
def test_matches_the_slow_formula(shape, dtype):
    student, teacher = make_logits(shape, 1, dtype), make_logits(shape, 2, dtype)
    labels = make_labels(shape)
    check_against_rows(
        lambda logits: nkd_loss(logits, teacher, labels, reduction="none", **OPTIONS),
        lambda n, row: _row_loss(row, teacher[n].double(), labels[n]),
        student,
    )


def test_gradcheck(inputs):
    student, teacher, labels = inputs
    weight = torch.linspace(0, 2, 6, dtype=torch.float64)
    for options in [{}, {"weight": weight}, {"weight": weight, "reduction": "none"}]:
        assert torch.autograd.gradcheck(
            lambda logits, o=options: nkd_loss(logits, teacher, labels, **o, **OPTIONS), student
        )


def test_gradient_is_the_closed_form(inputs):
    """p_y (q - onehot) + gamma T (q^ - p^ on the other classes)."""
    student, teacher, labels = inputs
    (gradient,) = torch.autograd.grad(nkd_loss(*inputs, **OPTIONS), student)
    for n, label in enumerate(labels):
        p, q = softmax(teacher[n]), softmax(student[n].detach())
        rest = torch.arange(5) != label
        expected = p[label] * (q - (~rest).double())
        p_rest, q_rest = (softmax(z[n].detach()[rest], 2.5) for z in (teacher, student))
        expected[rest] += 3.5 * 2.5 * (q_rest - p_rest)
        assert_close(gradient[n], expected / 6)


def test_ea_form_weights_each_sample(inputs):
    student, teacher, _ = inputs
    plain = nkd_loss(*inputs, reduction="none")
    assert_close(plain.mean(), nkd_loss(*inputs))
    weight = entropy_weight(student, teacher)
    assert_close(nkd_loss(*inputs, weight=weight), (weight * plain).mean())
    ones = torch.ones(6, dtype=torch.float64)
    assert torch.equal(nkd_loss(*inputs, weight=ones), nkd_loss(*inputs))


def test_teacher_gets_no_gradient(inputs):
    student, teacher, labels = inputs
    teacher.requires_grad_()
    nkd_loss(student, teacher, labels).backward()
    assert student.grad.any() and teacher.grad is None


def test_no_samples_give_a_zero_in_the_graph():
    student = torch.zeros(0, 5, requires_grad=True)
    loss = nkd_loss(student, torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64))
    assert loss == 0
    loss.backward()


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_saturated_logits(dtype):
    """p is one-hot at 3 and q at 5; the label is 3: the loss is the gap."""
    student = one_hot_logits(5, 81, dtype).requires_grad_()
    loss = nkd_loss(student, one_hot_logits(3, 81, dtype), torch.tensor([3]), gamma=0.0)
    gap = (student[0, 5].double() - student[0, 3].double()).detach()
    assert_matches(loss, gap)
    with_others = nkd_loss(student, one_hot_logits(3, 81, dtype), torch.tensor([3]))
    with_others.backward()
    assert with_others.isfinite() and student.grad.isfinite().all()


@pytest.mark.parametrize("dtype", HALVES)
def test_autocast(dtype):
    labels = make_labels((5, 81))
    check_autocast(lambda student, teacher: nkd_loss(student, teacher, labels), dtype)


def test_two_classes_have_no_others():
    student, teacher, labels = (
        make_logits((3, 2), 1),
        make_logits((3, 2), 2),
        torch.tensor([0, 1, 1]),
    )
    low, high = (nkd_loss(student, teacher, labels, gamma=gamma) for gamma in (0.0, 9.0))
    assert torch.equal(low, high)


def test_refuses(inputs):
    with pytest.raises(ValueError, match="at least 2 classes"):
        nkd_loss(torch.zeros(3, 1), torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="weight .* 6 samples"):
        nkd_loss(*inputs, weight=torch.ones(5))


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_released_code(name, dtype):
    case = golden_case("features/nkd", name)
    student, teacher = case["student"].to(dtype).requires_grad_(), case["teacher"].to(dtype)
    inputs = student, teacher, case["target"]
    gamma, temperature = case["gamma"].item(), case["tau"].item()
    options = {"temperature": temperature, "reduction": "none"}
    tolerance = {"rtol": PRECISIONS[dtype], "atol": PRECISIONS[dtype]}
    each = nkd_loss(*inputs, gamma=gamma, **options)
    target_term = nkd_loss(*inputs, gamma=0.0, **options)
    assert_close(each.double(), case["per_sample"], **tolerance)
    assert_close(target_term.double(), case["target_term_per_sample"], **tolerance)
    others = (each - target_term).double()
    assert_close(others, case["non_target_term_per_sample"], **tolerance)
    loss = nkd_loss(*inputs, gamma=gamma, temperature=temperature)
    assert_close(loss.double(), case["loss"], **tolerance)
    assert_close(torch.autograd.grad(loss, student)[0].double(), case["grad"], **tolerance)
