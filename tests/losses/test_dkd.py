import math

import pytest
import torch
from torch.nn.functional import one_hot
from torch.testing import assert_close

from eakd_det.losses import dkd_loss, entropy_weight, kd_loss, standardize
from tests.golden import PRECISIONS, Figures

from .contract import (
    HALVES,
    TOLERANCES,
    SampleLossContract,
    assert_matches,
    make_labels,
    make_logits,
    one_hot_logits,
    softmax,
)

TCKD = {"alpha": 1.0, "beta": 0.0}
NCKD = {"alpha": 0.0, "beta": 1.0}


class TestDKD(SampleLossContract):
    def loss(self, student_logits, teacher_logits, labels, **options):
        settings = {"alpha": 0.5, "beta": 2.0, "temperature": 2.5}
        return dkd_loss(student_logits, teacher_logits, labels, **settings, **options)

    def row_loss(self, student_logits, teacher_logits, label):
        p, q = softmax(teacher_logits, 2.5), softmax(student_logits, 2.5)
        rest = [c for c in range(len(p)) if c != label]
        # 1 - p in float64 would cost the reference digits where p is near 1.
        p_rest, q_rest = p[rest].sum(), q[rest].sum()
        tckd = p[label] * (p[label] / q[label]).log() + p_rest * (p_rest / q_rest).log()
        nckd = sum(p[c] / p_rest * torch.log(p[c] / p_rest / (q[c] / q_rest)) for c in rest)
        return 2.5**2 * (0.5 * tckd + 2.0 * nckd)


@pytest.fixture
def inputs():
    """Student logits, teacher logits, labels."""
    return make_logits((6, 7), 1), make_logits((6, 7), 2), make_labels((6, 7))


def test_defaults(inputs):
    explicit = dkd_loss(*inputs, alpha=1.0, beta=8.0, temperature=4.0)
    assert torch.equal(dkd_loss(*inputs), explicit)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_is_tckd_and_nckd_scaled_by_the_teachers_rest(inputs, temperature):
    """KD = TCKD + (1 - p_target) NCKD (equation 5)."""
    student, teacher, labels = inputs
    options = {"temperature": temperature, "reduction": "none"}
    p_target = softmax(teacher, temperature).gather(1, labels[:, None]).squeeze(1)
    tckd, nckd = dkd_loss(*inputs, **TCKD, **options), dkd_loss(*inputs, **NCKD, **options)
    assert_close(tckd + (1 - p_target) * nckd, kd_loss(student, teacher, **options))


def test_alpha_and_beta_weigh_the_two_parts(inputs):
    tckd, nckd = dkd_loss(*inputs, **TCKD), dkd_loss(*inputs, **NCKD)
    assert_close(dkd_loss(*inputs, alpha=3.0, beta=0.25), 3 * tckd + 0.25 * nckd)
    assert dkd_loss(*inputs, alpha=0.0, beta=0.0) == 0


def test_nckd_ignores_the_target_logit(inputs):
    student, teacher, labels = inputs
    moved = student + 5 * one_hot(labels, 7)
    assert_close(dkd_loss(moved, teacher, labels, **NCKD), dkd_loss(*inputs, **NCKD))
    assert dkd_loss(moved, teacher, labels, **TCKD) != dkd_loss(*inputs, **TCKD)


def test_tckd_ignores_the_order_of_the_other_classes(inputs):
    student, teacher, labels = inputs
    swapped = student.clone()
    swapped[:, [0, 1, 3, 4]] = student[:, [4, 3, 1, 0]]
    labels = torch.full_like(labels, 6)
    shuffled = dkd_loss(swapped, teacher, labels, **TCKD)
    assert_close(shuffled, dkd_loss(student, teacher, labels, **TCKD))
    assert dkd_loss(swapped, teacher, labels, **NCKD) != dkd_loss(student, teacher, labels, **NCKD)


def test_two_classes_leave_only_tckd():
    student, teacher, labels = make_logits((4, 2), 1), make_logits((4, 2), 2), make_labels((4, 2))
    student.requires_grad_()
    nckd = dkd_loss(student, teacher, labels, **NCKD)
    assert nckd == 0
    assert not torch.autograd.grad(nckd, student)[0].any()
    assert_close(dkd_loss(student, teacher, labels), kd_loss(student, teacher))


def test_refuses_one_class():
    with pytest.raises(ValueError, match=r"at least 2 classes, got logits \(3, 1\)"):
        dkd_loss(torch.zeros(3, 1), torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))


@pytest.fixture(params=[torch.float32, *HALVES], ids=str)
def saturated(request):
    """p is one-hot at 3 and q at 5; the target is the one, the other, or neither."""
    student = one_hot_logits(5, 81, request.param).repeat(3, 1).requires_grad_()
    teacher = one_hot_logits(3, 81, request.param).repeat(3, 1)
    return student, teacher, torch.tensor([3, 5, 7])


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_saturated_loss(saturated, temperature):
    options = {"temperature": temperature, "reduction": "none"}
    gap = (saturated[0].max().double() - saturated[0].min().double()).item() / temperature
    tckd = torch.tensor([gap, gap - math.log(80), 0], dtype=torch.float64)
    nckd = torch.tensor([gap * 79 / 80 - math.log(80), math.log(80), gap], dtype=torch.float64)
    assert_matches(dkd_loss(*saturated, **TCKD, **options), temperature**2 * tckd)
    assert_matches(dkd_loss(*saturated, **NCKD, **options), temperature**2 * nckd)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_saturated_gradient(saturated, temperature):
    student, teacher, labels = saturated
    target = one_hot(labels, 81).bool()
    q, p = _limit(student), _limit(teacher)
    q_rest, p_rest = (_limit(z.masked_fill(target, -torch.inf)) for z in (student, teacher))
    tckd = temperature * (q - p)[target][:, None] * (target.double() - q_rest)
    nckd = temperature * (q_rest - p_rest)

    options = {"temperature": temperature, "reduction": "none"}
    gradients = [
        torch.autograd.grad(dkd_loss(*saturated, **part, **options).sum(), student)[0]
        for part in (TCKD, NCKD)
    ]
    # The log-probability of the rest, about -2e4, is rounded to 1e-3 in float32, and its gradient
    # is off by that factor.
    atol, rtol = TOLERANCES[student.dtype]
    assert_close(gradients[0].double(), tckd, atol=atol, rtol=rtol + 1e-3)
    assert_matches(gradients[1], nckd)


def _limit(logits):
    """The softmax of saturated logits: equal shares for the largest."""
    top = (logits == logits.amax(dim=1, keepdim=True)).double()
    return top / top.sum(dim=1, keepdim=True)


def _logits(c):
    """The released DKD overwrites the logits by their standardised form, for the weight too."""
    return (standardize(c.student), standardize(c.teacher)) if c.LS else (c.student, c.teacher)


def _weight(c, temperature=None, bound=None):
    return entropy_weight(*_logits(c), temperature=temperature or c.t, bound=bound)


def _raw_weight(c):
    return entropy_weight(c.student, c.teacher, temperature=c.t)


def _dkd(c, **options):
    settings = {"alpha": c.alpha, "beta": c.beta, "temperature": c.T}
    return dkd_loss(*_logits(c), c.target, **(settings | options))


DKD = Figures(
    "dkd",
    ["c100_a1_b8_T4", "c1000_a1_b05_T1", "csmall_a1_b2_T4", "c100_LS_T2", "c1000_LS_T1"],
    values={
        "tckd": lambda c: _dkd(c, **TCKD, reduction="none"),
        "nckd": lambda c: _dkd(c, **NCKD, reduction="none"),
        "w": _weight,
        "w_raw": _raw_weight,
        "w_hub100": lambda c: _weight(c, bound=100),
        "w_tconf": lambda c: _weight(c, temperature=c.t_configured),
    },
    losses={
        "dkd": _dkd,
        "eadkd": lambda c, **options: _dkd(c, weight=_weight(c), **options),
        "eadkd_hub100": lambda c, **options: _dkd(c, weight=_weight(c, bound=100), **options),
        "eadkd_tconf": lambda c, **options: _dkd(
            c, weight=_weight(c, temperature=c.t_configured), **options
        ),
        "eadkd_raww": lambda c, **options: _dkd(c, weight=_raw_weight(c), **options),
    },
    out_of_scope={"erdkd_official": "a slip of shapes makes it mean(DKD) * mean(H)"},
)


def _detection_weight(c):
    return entropy_weight(c.student, c.teacher, temperature=c.t)


def _detection_dkd(c, **options):
    settings = {"alpha": c.alpha, "beta": c.beta, "temperature": c.T}
    return dkd_loss(c.student, c.teacher, c.gt_classes, **(settings | options))


DETECTION = Figures(
    "detection",
    [""],
    values={
        "tckd": lambda c: _detection_dkd(c, **TCKD, reduction="none"),
        "nckd": lambda c: _detection_dkd(c, **NCKD, reduction="none"),
        "w": _detection_weight,
    },
    losses={
        "dkd": _detection_dkd,
        "eadkd": lambda c, **options: _detection_dkd(c, weight=_detection_weight(c), **options),
    },
    out_of_scope=dict.fromkeys(
        [
            *("kd", "kd_grad", "erkd", "erkd_grad", "erkd_per_sample"),
            *("w_t3", "eakd_t3", "eakd_t3_grad", "w_t2", "eakd_t2", "eakd_t2_grad"),
        ],
        "test_kd.py compares it",
    ),
)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("case", DKD.cases)
def test_released_code(case, dtype):
    DKD.compare(case, dtype)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_released_code_on_detection(dtype):
    DETECTION.compare("", dtype)


@pytest.mark.parametrize("figures", [DKD, DETECTION], ids=lambda figures: figures.file)
def test_no_released_figure_is_forgotten(figures):
    figures.assert_complete()
