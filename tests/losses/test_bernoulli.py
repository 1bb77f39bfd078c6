import math

import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import bernoulli_entropy, bernoulli_kd_loss, entropy, kd_loss

from .contract import (
    HALVES,
    SampleLossContract,
    check_against_rows,
    each_shape_and_dtype,
    make_logits,
)


class TestBernoulliKD(SampleLossContract):
    test_shifting_logits_changes_nothing = None  # a sigmoid is no softmax

    def loss(self, student_logits, teacher_logits, labels, **options):
        return bernoulli_kd_loss(student_logits, teacher_logits, temperature=2.5, **options)

    def row_loss(self, student_logits, teacher_logits, label):
        total = 0.0
        for z_s, z_t in zip(student_logits, teacher_logits, strict=True):
            for sign in (1, -1):
                p = 1 / (1 + torch.exp(-sign * z_t / 2.5))
                q = 1 / (1 + torch.exp(-sign * z_s / 2.5))
                total = total + p * torch.log(p / q)
        return 2.5**2 * total


def test_temperature_is_4_unless_given():
    student, teacher = make_logits((3, 5), 1), make_logits((3, 5), 2)
    explicit = bernoulli_kd_loss(student, teacher, temperature=4.0)
    assert torch.equal(bernoulli_kd_loss(student, teacher), explicit)


def test_one_class_is_a_softmax_of_two():
    student, teacher = make_logits((6, 1), 1), make_logits((6, 1), 2)
    two = [torch.cat([z, torch.zeros_like(z)], dim=1) for z in (student, teacher)]
    assert_close(bernoulli_kd_loss(student, teacher), kd_loss(*two))
    assert_close(bernoulli_entropy(student), entropy(two[0]))


def test_classes_are_independent():
    """The loss of many classes is the sum, the entropy the mean, of each class alone."""
    student, teacher = make_logits((6, 4), 1), make_logits((6, 4), 2)
    columns = list(zip(student.split(1, dim=1), teacher.split(1, dim=1), strict=True))
    assert_close(bernoulli_kd_loss(student, teacher), sum(bernoulli_kd_loss(*c) for c in columns))
    alone = torch.stack([bernoulli_entropy(z) for z, _ in columns])
    assert_close(bernoulli_entropy(student), alone.mean(dim=0))


@each_shape_and_dtype
def test_entropy_matches_the_slow_formula(shape, dtype):
    def of_row(n, row):
        p = 1 / (1 + torch.exp(-row / 2))
        return -(p * p.log() + (1 - p) * (1 - p).log()).mean()

    check_against_rows(
        lambda logits: bernoulli_entropy(logits, temperature=2.0),
        of_row,
        make_logits(shape, 1, dtype),
    )


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_entropy_at_its_ends(dtype):
    logits = torch.tensor([[0.0, 0.0], [1e4, -1e4]], dtype=dtype)
    assert_close(bernoulli_entropy(logits), torch.tensor([math.log(2), 0.0]))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_saturated_logits(dtype):
    student = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype).requires_grad_()
    teacher = torch.tensor([[-1e4, 1e4, 1e4]], dtype=dtype)
    loss = bernoulli_kd_loss(student, teacher, temperature=1.0)
    gap = student[0, 0].item()
    assert_close(loss, torch.tensor(2 * gap + math.log(2)))
    loss.backward()
    assert_close(student.grad, torch.tensor([[1.0, -1.0, -0.5]], dtype=dtype))
