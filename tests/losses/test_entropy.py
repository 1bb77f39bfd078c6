import math

import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import combine_entropies, entropy, entropy_weight
from tests.golden import PRECISIONS, Figures

from .contract import (
    HALVES,
    assert_matches,
    check_against_rows,
    check_autocast,
    each_shape_and_dtype,
    make_logits,
    one_hot_logits,
    softmax,
)


@each_shape_and_dtype
def test_entropy_matches_the_slow_formula(shape, dtype):
    check_against_rows(
        lambda logits: entropy(logits, temperature=2.5),
        lambda n, row: sum(-p * p.log() for p in softmax(row, 2.5)),
        make_logits(shape, 1, dtype),
    )


@each_shape_and_dtype
def test_weight_matches_the_slow_formula(shape, dtype):
    student, teacher = make_logits(shape, 1, dtype), make_logits(shape, 2, dtype)
    weight = entropy_weight(student, teacher, temperature=2.5)
    rows = zip(student.double(), teacher.double(), strict=True)
    exact = [_slow_weight(*row, temperature=2.5) for row in rows]
    assert weight.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_matches(weight, torch.tensor(exact, dtype=torch.float64))


def _slow_weight(student, teacher, temperature):
    h_s, h_t = (-sum(p * math.log(p) for p in softmax(z, temperature)) for z in (student, teacher))
    return (h_t + h_t * h_s / math.log(len(student))) / 2


def test_gradcheck():
    logits = make_logits((4, 5), 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda logits: entropy(logits, temperature=2.5), logits)


def test_entropy_lies_between_0_and_log_c():
    for scale in (1e-3, 1.0, 30.0):
        values = entropy(make_logits((50, 7), 1, scale=scale))
        assert (values >= 0).all()
        assert (values <= math.log(7) + 1e-15).all()


@pytest.mark.parametrize("classes", [1, 2, 81, 1000])
def test_entropy_of_uniform_logits_is_log_c(classes):
    uniform = torch.full((1,), math.log(classes), dtype=torch.float64)
    assert_close(entropy(torch.full((1, classes), 3.0, dtype=torch.float64)), uniform)


def test_entropy_ignores_shift_and_follows_permutation():
    logits, order = make_logits((6, 5), 1), torch.tensor([4, 2, 0, 5, 1, 3])
    assert_close(entropy(logits + make_logits((6, 1), 2, scale=50)), entropy(logits))
    assert_close(entropy(logits[order]), entropy(logits)[order])
    assert_close(entropy(logits.flip(1)), entropy(logits))


def test_temperature_divides_the_logits_and_flattens():
    logits = make_logits((6, 5), 1)
    assert_close(entropy(logits, temperature=3.0), entropy(logits / 3))
    assert (entropy(logits, temperature=3.0) > entropy(logits)).all()


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_entropy_of_saturated_logits_is_exactly_0(dtype):
    logits = one_hot_logits(3, 81, dtype).requires_grad_()
    value = entropy(logits)
    value.sum().backward()
    assert value == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_weight_at_its_corners(dtype):
    """Saturated and uniform teachers and students, in all four pairs."""
    saturated, uniform = one_hot_logits(3, 81, dtype), torch.full((1, 81), 1e4, dtype=dtype)
    log_c = torch.tensor([math.log(81)], dtype=torch.float64)
    assert entropy_weight(saturated, saturated) == 0
    assert entropy_weight(uniform, saturated) == 0
    assert_matches(entropy_weight(saturated, uniform), log_c / 2)
    assert_matches(entropy_weight(uniform, uniform), log_c)


def test_weight_uses_both_entropies():
    student, teacher = make_logits((6, 5), 1), make_logits((6, 5), 2)
    weight = entropy_weight(student, teacher)
    assert (entropy_weight(student / 2, teacher) > weight).all()
    assert (entropy_weight(student, teacher / 2) > weight).all()
    assert not torch.allclose(entropy_weight(teacher, student), weight)


def test_weight_is_detached():
    student, teacher = (make_logits((6, 5), seed).requires_grad_() for seed in (1, 2))
    assert not entropy_weight(student, teacher).requires_grad


def test_weight_has_temperature_3_and_bound_log_c_unless_given():
    student, teacher = make_logits((6, 5), 1), make_logits((6, 5), 2)
    explicit = entropy_weight(student, teacher, temperature=3.0, bound=math.log(5))
    assert torch.equal(entropy_weight(student, teacher), explicit)


def test_weight_divides_the_student_by_the_bound():
    student, teacher = make_logits((6, 5), 1), make_logits((6, 5), 2)
    h_s, h_t = entropy(student, temperature=3.0), entropy(teacher, temperature=3.0)
    assert_close(entropy_weight(student, teacher, bound=100), h_t / 2 * (1 + h_s / 100))
    assert_close(entropy_weight(student, teacher, bound=1e12), h_t / 2)


def test_weight_from_entropies_at_hand():
    student, teacher = make_logits((6, 5), 1), make_logits((6, 5), 2)
    h_s, h_t = entropy(student, temperature=3.0), entropy(teacher, temperature=3.0)
    assert torch.equal(combine_entropies(h_s, h_t, 5), entropy_weight(student, teacher))
    assert combine_entropies(torch.tensor(1.0), torch.tensor(3.0), 9, bound=2.0) == 2.25


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan])
def test_weight_refuses_a_bound_that_is_not_positive(bound):
    with pytest.raises(ValueError, match="must be positive"):
        entropy_weight(torch.zeros(3, 5), torch.zeros(3, 5), bound=bound)


def test_weight_refuses_one_class():
    with pytest.raises(ValueError, match="one class"):
        entropy_weight(torch.zeros(3, 1), torch.zeros(3, 1))


@pytest.mark.parametrize("dtype", HALVES)
def test_autocast(dtype):
    check_autocast(lambda student, teacher: entropy(student), dtype)
    check_autocast(
        lambda student, teacher: student.float() * entropy_weight(student, teacher)[:, None], dtype
    )


def _teacher(c):
    return entropy(c.teacher, temperature=c.t)


def _student(c):
    return entropy(c.student, temperature=c.t)


def _weight(c):
    return entropy_weight(c.student, c.teacher, temperature=c.t)


def _weight_hub100(c):
    return entropy_weight(c.student, c.teacher, temperature=c.t, bound=100)


def _epsilon_slack(array, c):
    """An epsilon makes the released entropies low by up to C * 1e-10, w by up to 2 C * 1e-10."""
    if array.endswith("_exact"):
        return 0.0
    return (2 if array.startswith("w") else 1) * c.student.shape[1] * 1e-10


EA_WEIGHT = Figures(
    "ea_weight",
    ["c100_t3", "c100_t2", "c1000_t2", "c1000_t3", "csmall_t3", "extreme_t3"],
    values={
        **dict.fromkeys(["H_T", "H_T_clamp", "H_T_exact"], _teacher),
        **dict.fromkeys(["H_S", "H_S_clamp", "H_S_exact"], _student),
        **dict.fromkeys(["w", "w_clamp", "w_exact"], _weight),
        **dict.fromkeys(["w_hub100", "w_clamp_hub100"], _weight_hub100),
    },
    slack=_epsilon_slack,
)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("case", EA_WEIGHT.cases)
def test_released_code(case, dtype):
    EA_WEIGHT.compare(case, dtype)


def test_no_released_figure_is_forgotten():
    EA_WEIGHT.assert_complete()


def test_classes_of_minus_infinity_have_no_part():
    logits = make_logits((3, 7), 1).requires_grad_()
    padded = torch.cat([logits, torch.full((3, 2), -torch.inf, dtype=torch.float64)], dim=1)
    assert_close(entropy(padded), entropy(logits))
    (gradient,) = torch.autograd.grad(entropy(padded).sum(), logits)
    (expected,) = torch.autograd.grad(entropy(logits).sum(), logits)
    assert_close(gradient, expected)
