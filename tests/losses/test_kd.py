import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import entropy, entropy_weight, kd_loss, standardize
from tests.golden import PRECISIONS, Figures

from .contract import (
    HALVES,
    SampleLossContract,
    assert_matches,
    make_logits,
    one_hot_logits,
    softmax,
)


class TestKD(SampleLossContract):
    def loss(self, student_logits, teacher_logits, labels, **options):
        return kd_loss(student_logits, teacher_logits, temperature=2.5, **options)

    def row_loss(self, student_logits, teacher_logits, label):
        p, q = softmax(teacher_logits, 2.5), softmax(student_logits, 2.5)
        return 2.5**2 * sum(p_c * torch.log(p_c / q_c) for p_c, q_c in zip(p, q, strict=True))


def test_temperature_is_4_unless_given():
    student, teacher = make_logits((3, 5), 1), make_logits((3, 5), 2)
    assert torch.equal(kd_loss(student, teacher), kd_loss(student, teacher, temperature=4.0))


def test_high_temperature_regresses_the_logits():
    """With T^2 the limit is half the mean squared difference of zero-mean logits (section 2.1)."""
    student, teacher = make_logits((3, 7), 1), make_logits((3, 7), 2)
    student, teacher = (z - z.mean(dim=1, keepdim=True) for z in (student, teacher))
    limit = (student - teacher).square().mean(dim=1) / 2
    loss = kd_loss(student, teacher, temperature=1e5, reduction="none")
    assert_close(loss, limit, rtol=1e-4, atol=0)


def test_one_class_gives_zero():
    student = make_logits((3, 1), 1).requires_grad_()
    loss = kd_loss(student, make_logits((3, 1), 2))
    loss.backward()
    assert loss == 0
    assert not student.grad.any()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_saturated_logits(dtype, temperature):
    """One-hot p at 3 and q at 5: the KL is the gap / T, its gradient (q - p) / T."""
    student = one_hot_logits(5, 81, dtype).requires_grad_()
    loss = kd_loss(student, one_hot_logits(3, 81, dtype), temperature=temperature)
    loss.backward()
    gap = (student[0, 5].double() - student[0, 3].double()).detach()
    assert_matches(loss, temperature * gap)
    exact = torch.zeros(1, 81, dtype=torch.float64)
    exact[0, 5], exact[0, 3] = temperature, -temperature
    assert_matches(student.grad, exact)


def _raw_weight(c, bound=None):
    return entropy_weight(c.student, c.teacher, temperature=c.t, bound=bound)


def _normalised_weight(c):
    return entropy_weight(standardize(c.student), standardize(c.teacher), temperature=c.t)


def _kd(c, **options):
    return kd_loss(c.student, c.teacher, temperature=c.T, **options)


def _kd_ls(c, **options):
    return kd_loss(standardize(c.student), standardize(c.teacher), temperature=c.T, **options)


def _epsilon_slack(array, c):
    """Its log(p + 1e-10) makes each entropy low by up to C * 1e-10, so w by up to 2 C * 1e-10."""
    if not array.startswith(("w", "eakd")):
        return 0.0
    off = 2 * c.student.shape[1] * 1e-10
    largest_kl = _kd(c, reduction="none").max().item() if array.startswith("eakd") else 1.0
    return off * max(largest_kl, 1.0)


KD = Figures(
    "kd",
    ["c100_T4", "c1000_T1", "csmall_T4", "c100_LS_T2", "c100_LS_T4", "c1000_LS_T2"],
    values={
        "w": _raw_weight,
        "w_raw": _raw_weight,
        "w_norm": _normalised_weight,
        "w_hub100": lambda c: _raw_weight(c, bound=100),
        "student_std": lambda c: standardize(c.student),
        "teacher_std": lambda c: standardize(c.teacher),
    },
    losses={
        "kd": _kd,
        "eakd": lambda c, **options: _kd(c, weight=_raw_weight(c), **options),
        "eakd_hub100": lambda c, **options: _kd(c, weight=_raw_weight(c, bound=100), **options),
        "erkd": lambda c, **options: _kd(c, weight=entropy(c.teacher, temperature=4), **options),
        "kdls": _kd_ls,
        "eakdls": lambda c, **options: _kd_ls(c, weight=_raw_weight(c), **options),
        "eakdls_normw": lambda c, **options: _kd_ls(c, weight=_normalised_weight(c), **options),
    },
    out_of_scope={"ce": "cross entropy is torch's own"}
    | dict.fromkeys(
        ["kd_total", "eakd_total", "kdls_total", "eakdls_total"], "ce and the mean, weighted"
    ),
    slack=_epsilon_slack,
)


def _detection_kd(c, t, **options):
    weight = entropy_weight(c.student, c.teacher, temperature=t)
    return kd_loss(c.student, c.teacher, temperature=c.T, weight=weight, **options)


def _detection_erkd(c, **options):
    weight = entropy(c.teacher, temperature=c.erkd_T_p)
    return kd_loss(c.student, c.teacher, temperature=c.erkd_T, weight=weight, **options)


DETECTION = Figures(
    "detection",
    [""],
    values={
        "w_t3": lambda c: entropy_weight(c.student, c.teacher, temperature=3),
        "w_t2": lambda c: entropy_weight(c.student, c.teacher, temperature=2),
    },
    losses={
        "kd": _kd,
        "erkd": _detection_erkd,
        "eakd_t3": lambda c, **options: _detection_kd(c, 3, **options),
        "eakd_t2": lambda c, **options: _detection_kd(c, 2, **options),
    },
    out_of_scope=dict.fromkeys(
        ["dkd", "dkd_grad", "tckd", "nckd", "w", "eadkd", "eadkd_grad", "eadkd_per_sample"],
        "test_dkd.py compares it",
    ),
    slack=_epsilon_slack,
)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("case", KD.cases)
def test_released_code(case, dtype):
    KD.compare(case, dtype)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_released_code_on_detection(dtype):
    DETECTION.compare("", dtype)


@pytest.mark.parametrize("figures", [KD, DETECTION], ids=lambda figures: figures.file)
def test_no_released_figure_is_forgotten(figures):
    figures.assert_complete()
