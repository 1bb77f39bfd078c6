import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import entropy_weight, kd_loss, ttm_loss, wttm_loss
from tests.golden import PRECISIONS, golden, golden_case

from .contract import (
    HALVES,
    SampleLossContract,
    assert_matches,
    make_logits,
    one_hot_logits,
    softmax,
)

GAMMA = 0.25  # exact in halves, too


class TestTTM(SampleLossContract):
    def loss(self, student_logits, teacher_logits, labels, **options):
        return ttm_loss(student_logits, teacher_logits, gamma=GAMMA, **options)

    def row_loss(self, student_logits, teacher_logits, label):
        powers = softmax(teacher_logits) ** GAMMA
        p, q = powers / powers.sum(), softmax(student_logits)
        return sum(p_c * torch.log(p_c / q_c) for p_c, q_c in zip(p, q, strict=True))

    def test_equal_logits_give_zero(self, inputs):
        """They are equal to gamma times the teacher's."""
        _, teacher, labels = inputs
        student = (GAMMA * teacher).requires_grad_()
        loss = self.loss(student, teacher, labels)
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss == 0
        assert_close(gradient, torch.zeros_like(gradient), atol=1e-14, rtol=0)

    @pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
    def test_equal_saturated_logits_give_zero(self, dtype):
        teacher = one_hot_logits(3, 81, dtype).repeat(2, 1)
        student = (GAMMA * teacher).requires_grad_()
        loss = self.loss(student, teacher, torch.tensor([3, 7]))
        loss.backward()
        assert loss == 0
        assert_matches(student.grad, torch.zeros(2, 81, dtype=torch.float64))


class TestWTTM(TestTTM):
    def loss(self, student_logits, teacher_logits, labels, **options):
        return wttm_loss(student_logits, teacher_logits, gamma=GAMMA, **options)

    def row_loss(self, student_logits, teacher_logits, label):
        power_sum = (softmax(teacher_logits) ** GAMMA).sum()
        return power_sum * super().row_loss(student_logits, teacher_logits, label)


@pytest.fixture
def logits():
    return make_logits((6, 5), 1), make_logits((6, 5), 2)


@pytest.mark.parametrize("loss", [ttm_loss, wttm_loss])
def test_gamma_is_a_tenth_unless_given(loss, logits):
    assert torch.equal(loss(*logits), loss(*logits, gamma=0.1))
    assert loss(*logits) != loss(*logits, gamma=0.2)


@pytest.mark.parametrize("loss", [ttm_loss, wttm_loss])
def test_gamma_of_1_is_kd_at_temperature_1(loss, logits):
    assert_close(loss(*logits, gamma=1.0), kd_loss(*logits, temperature=1.0))


def test_is_kd_without_the_temperature_of_the_student(logits):
    student, teacher = logits
    kd = kd_loss(4 * student, teacher, temperature=4.0) / 4.0**2
    assert_close(ttm_loss(student, teacher, gamma=1 / 4), kd)


def test_power_sum_weighs_uncertain_teachers_more():
    """The sum is 1 for a one-hot teacher and C^(1 - gamma) for a uniform one, of C classes."""
    teacher = torch.cat([one_hot_logits(3, 7, torch.float64), torch.zeros(1, 7)])
    student = make_logits((2, 7), 1)
    power_sum = wttm_loss(student, teacher, gamma=0.3, reduction="none") / ttm_loss(
        student, teacher, gamma=0.3, reduction="none"
    )
    assert_close(power_sum, torch.tensor([1.0, 7**0.7], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_saturated_logits(dtype):
    """p is one-hot at 3, q at 5: the KL is the gap, its gradient q - p, and U is 1."""
    for loss in (ttm_loss, wttm_loss):
        student = one_hot_logits(5, 81, dtype).requires_grad_()
        value = loss(student, one_hot_logits(3, 81, dtype))
        value.backward()
        gap = (student[0, 5].double() - student[0, 3].double()).detach()
        assert_matches(value, gap)
        exact = torch.zeros(1, 81, dtype=torch.float64)
        exact[0, 5], exact[0, 3] = 1.0, -1.0
        assert_matches(student.grad, exact)


CASES = ["c100.g0", "c100.g1", "c100.g2", "c100.g3", "csmall.g0"]
INPUTS = {"student", "teacher", "target", "H_ub", "t", "gamma"}


def _figures(case, dtype):
    """Our values of the arrays of a case, by name."""
    common = golden_case("ttm", case.partition(".")[0])
    gamma = golden_case("ttm", case)["gamma"].item()
    student, teacher = (common[name].to(dtype) for name in ("student", "teacher"))
    student.requires_grad_()
    weight = entropy_weight(student, teacher, temperature=common["t"].item())
    figures = {
        "power_sum": (softmax(teacher) ** gamma).sum(dim=1),
        "q": softmax(gamma * teacher),
    }
    for name, loss in {"ttm": ttm_loss, "wttm": wttm_loss}.items():
        for prefix, options in {"": {}, "ea": {"weight": weight}}.items():
            options = {"gamma": gamma, **options}
            mean = loss(student, teacher, **options)
            figures |= {
                f"{prefix}{name}_per_sample": loss(student, teacher, reduction="none", **options),
                f"{prefix}{name}_mean": mean,
                f"{prefix}{name}_grad": torch.autograd.grad(mean, student)[0],
            }
    del figures["eawttm_per_sample"]  # the file has none
    return figures


def _compare(figures, arrays, dtype):
    assert arrays.keys() - INPUTS == figures.keys()
    for name, figure in figures.items():
        assert figure.dtype == dtype
        assert_close(
            figure.detach().double(),
            arrays[name],
            rtol=PRECISIONS[dtype],
            # Its log(p + 1e-10) makes the weights low by up to 2 C * 1e-10.
            atol=PRECISIONS[dtype] + (4e-7 if name == "w" or name.startswith("ea") else 0.0),
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_released_code(case, dtype):
    _compare(_figures(case, dtype), golden_case("ttm", case), dtype)


@pytest.mark.parametrize("case", ["c100", "csmall"])
def test_released_weights(case):
    arrays = golden_case("ttm", case)
    student, teacher = arrays["student"], arrays["teacher"]
    figures = {
        "w": entropy_weight(student, teacher, temperature=arrays["t"].item()),
        "ce": torch.nn.functional.cross_entropy(student, arrays["target"]),
    }
    _compare(figures, arrays, torch.float64)


def test_no_released_figure_is_forgotten():
    assert {name.rpartition(".")[0] for name in golden("ttm")} == {"c100", "csmall", *CASES}
