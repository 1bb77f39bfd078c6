import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import (
    CurriculumTemperature,
    curriculum_strength,
    entropy_weight,
    kd_loss,
    standardize,
)

from .contract import make_logits, softmax


def temperature_at(u, dtype=torch.float64):
    module = CurriculumTemperature().to(dtype)
    torch.nn.init.constant_(module.u, u)
    return module


def test_temperature_stays_between_1_and_21():
    assert temperature_at(-100)(-1.0) == 1
    assert temperature_at(100)(-1.0) == 21
    assert_close(temperature_at(0)(-1.0).item(), 11.0)


def test_has_one_scalar_parameter():
    assert {name: u.shape for name, u in CurriculumTemperature().named_parameters()} == {"u": ()}


@pytest.mark.parametrize("u", [-2.0, 0.3, 1.0])
@pytest.mark.parametrize("strength", [0.0, -0.3, -1.0, 1.0])
def test_strength_scales_the_gradient_alone(u, strength):
    module = temperature_at(u)
    temperature = module(strength)
    assert torch.equal(temperature, 1 + 20 * torch.sigmoid(module.u))
    (gradient,) = torch.autograd.grad(temperature, module.u)
    sigmoid = torch.sigmoid(module.u.detach())
    assert_close(gradient, strength * 20 * sigmoid * (1 - sigmoid))


def test_optimizer_raises_the_loss_over_the_temperature():
    student, teacher = make_logits((6, 5), 1), make_logits((6, 5), 2)
    module = temperature_at(0.5)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        loss = kd_loss(student, teacher, temperature=module(-1.0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses)
    assert losses[0] < losses[-1]


def _slow_kd(student, teacher, temperature, weight):
    """The textbook formula; the temperature stands in both softmaxes and in the factor."""
    q, p = softmax(student, temperature), softmax(teacher, temperature)
    return (weight * temperature**2 * (p * (p / q).log()).sum(dim=1)).mean()


@pytest.mark.parametrize("is_standardized", [False, True])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_kd_gives_gradients_to_the_temperature(is_standardized, is_weighted):
    student, teacher = make_logits((6, 5), 1).requires_grad_(), make_logits((6, 5), 2)
    weight = entropy_weight(student, teacher) if is_weighted else None
    temperature = torch.tensor(3.5, dtype=torch.float64, requires_grad=True)

    def loss(student, temperature, kd=kd_loss, **options):
        logits = student, teacher
        if is_standardized:
            logits = tuple(map(standardize, logits))
        return kd(*logits, temperature=temperature, **options)

    value = loss(student, temperature, weight=weight)
    slow = loss(student, temperature, _slow_kd, weight=1.0 if weight is None else weight)
    assert_close(value, slow)
    inputs = student, temperature
    for pair in zip(
        torch.autograd.grad(value, inputs), torch.autograd.grad(slow, inputs), strict=True
    ):
        assert_close(*pair)
    assert torch.autograd.gradcheck(lambda *inputs: loss(*inputs, weight=weight), inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_under_autocast_kd_is_what_it_is_outside(dtype):
    student, teacher = make_logits((6, 5), 1, dtype), make_logits((6, 5), 2, dtype)
    module = CurriculumTemperature()
    values = []
    for enabled in (True, False):
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            loss = kd_loss(student, teacher, temperature=module(-1.0))
        (gradient,) = torch.autograd.grad(loss, module.u)
        assert loss.dtype == gradient.dtype == torch.float32
        values.append(torch.stack([loss.detach(), gradient]))
    assert torch.equal(*values)


def test_no_samples_leave_the_temperature_alone():
    module = CurriculumTemperature()
    loss = kd_loss(torch.zeros(0, 5), torch.zeros(0, 5), temperature=module(-1.0))
    loss.backward()
    assert loss == 0
    assert module.u.grad == 0


def test_strength_falls_from_0_to_minus_1():
    strengths = [curriculum_strength(epoch, epochs=10) for epoch in range(15)]
    assert strengths == sorted(strengths, reverse=True)
    assert strengths[0] == 0
    assert_close(strengths[5], -0.5)
    assert strengths[10:] == [-1.0] * 5


def test_curriculum_takes_10_epochs_unless_given():
    assert (
        curriculum_strength(3)
        == curriculum_strength(3, epochs=10)
        != curriculum_strength(3, epochs=5)
    )


def test_refuses_a_curriculum_without_epochs():
    with pytest.raises(ValueError, match="at least 1 epoch, got 0"):
        curriculum_strength(1, epochs=0)
