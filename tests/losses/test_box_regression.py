import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import bounded_box_loss

from .contract import HALVES, make_logits


def _inputs(dtype=torch.float64):
    """Deltas of student, teacher and target; the teacher is better in about half of the ROIs."""
    return [make_logits((8, 4), seed, dtype, scale=1.0) for seed in (1, 2, 3)]


def _slow(student, teacher, target, margin, beta):
    if ((student - target) ** 2).sum() + margin <= ((teacher - target) ** 2).sum():
        return 0 * student.sum()
    total = 0 * student.sum()
    for s, t in zip(student, teacher, strict=True):
        gap = (s - t).abs()
        total = total + (gap**2 / (2 * beta) if gap < beta else gap - beta / 2)
    return total


@pytest.mark.parametrize("margin", [0.0, 3.0])
@pytest.mark.parametrize("beta", [0.0, 0.7])
def test_matches_the_slow_formula(margin, beta):
    student, teacher, target = _inputs()
    student.requires_grad_()
    options = {"margin": margin, "beta": beta}
    each = bounded_box_loss(student, teacher, target, reduction="none", **options)
    exact = torch.stack(
        [_slow(*row, **options) for row in zip(student, teacher, target, strict=True)]
    )
    assert_close(each, exact)
    assert 0 < (each == 0).sum() < 8
    weight = torch.linspace(0.5, 2, 8, dtype=torch.float64)
    loss = bounded_box_loss(student, teacher, target, weight=weight, **options)
    expected = (weight * exact).mean()
    assert_close(loss, expected)
    assert_close(*(torch.autograd.grad(x, student)[0] for x in (loss, expected)))


def test_gradcheck():
    student, *rest = _inputs()
    assert torch.autograd.gradcheck(
        lambda x: bounded_box_loss(x, *rest, margin=3.0, beta=0.7, reduction="none"),
        student.requires_grad_(),
    )


def test_a_better_student_learns_nothing():
    _, teacher, target = _inputs()
    student = target.clone().requires_grad_()
    loss = bounded_box_loss(student, teacher, target)
    loss.backward()
    assert loss == 0 and not student.grad.any()
    assert bounded_box_loss(student, teacher, target, margin=1e3) > 0


def test_others_get_no_gradient():
    student, teacher, target = (x.requires_grad_() for x in _inputs())
    bounded_box_loss(student, teacher, target).backward()
    assert student.grad.any() and teacher.grad is None and target.grad is None


def test_targets_that_are_not_finite_do_not_count():
    student, teacher, target = _inputs()
    target[0], target[1] = torch.nan, -torch.inf
    student.requires_grad_()
    each = bounded_box_loss(student, teacher, target, margin=1e3, reduction="none")
    each.sum().backward()
    assert (each[:2] == 0).all() and (each[2:] > 0).all()
    assert student.grad.isfinite().all() and not student.grad[:2].any()


def test_no_roi_gives_a_zero_in_the_graph():
    student = torch.zeros(0, 4, requires_grad=True)
    loss = bounded_box_loss(student, torch.zeros(0, 4), torch.zeros(0, 4))
    assert loss == 0
    loss.backward()


@pytest.mark.parametrize("dtype", HALVES)
def test_halves_are_computed_in_float32(dtype):
    inputs = _inputs(dtype)
    loss = bounded_box_loss(*inputs)
    assert loss.dtype == torch.float32
    assert_close(loss, bounded_box_loss(*(x.float() for x in inputs)))


def test_weight_of_ones_changes_nothing_and_others_are_refused():
    inputs = _inputs()
    ones = torch.ones(8, dtype=torch.float64)
    assert torch.equal(bounded_box_loss(*inputs, weight=ones), bounded_box_loss(*inputs))
    with pytest.raises(ValueError, match="weight .* 8 samples"):
        bounded_box_loss(*inputs, weight=torch.ones(3))
