import pytest
import torch

from eakd_det.losses import entropy_weight, kd_loss, shared_softmax, wttm_loss
from eakd_det.losses.softmax import log_softmax
from tests.reads import Operators


def _counter():
    return Operators(torch.ops.aten._log_softmax)


def _logits():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 5, dtype=torch.float64, generator=generator)
    return student.requires_grad_(), teacher


def _ea_losses(student, teacher, temperature):
    weight = entropy_weight(student, teacher, temperature=3.0)
    kd = kd_loss(student, teacher, temperature=temperature, weight=weight)
    return kd + wttm_loss(student, teacher, weight=weight)


# The two losses and the weight: 2 of T, 2 of 3, and 3 of WTTM's, of which none repeats.
@pytest.mark.parametrize(("temperature", "computed"), [(3.0, 5), (4.0, 7)])
def test_equal_temperatures_are_computed_once(temperature, computed):
    student, teacher = _logits()
    alone = _ea_losses(student, teacher, temperature)
    (gradient,) = torch.autograd.grad(alone, student)
    with _counter() as counter, shared_softmax():
        shared = _ea_losses(student, teacher, temperature)
    assert len(counter.seen) == computed
    assert torch.equal(shared, alone)
    assert torch.equal(torch.autograd.grad(shared, student)[0], gradient)


def test_nothing_is_shared_outside():
    student, _ = _logits()
    with _counter() as counter:
        for _ in range(2):
            with shared_softmax():
                log_softmax(student, 2.0)
            log_softmax(student, 2.0)
    assert len(counter.seen) == 4


def test_an_error_ends_the_sharing():
    student, _ = _logits()
    with pytest.raises(RuntimeError), shared_softmax():
        raise RuntimeError
    with _counter() as counter:
        log_softmax(student), log_softmax(student)
    assert len(counter.seen) == 2


def test_changed_logits_are_computed_again():
    logits = torch.zeros(2, 3)
    with shared_softmax():
        before = log_softmax(logits)
        logits[:, 0] = 1
        assert not torch.equal(log_softmax(logits), before)


def test_gradients_go_where_they_should():
    student, teacher = _logits()
    teacher.requires_grad_()
    with shared_softmax():
        with torch.no_grad():
            assert not log_softmax(student).requires_grad
        assert log_softmax(student).requires_grad
        assert not log_softmax(teacher, constant=True).requires_grad
        assert log_softmax(teacher).requires_grad


def test_a_tensor_as_temperature_keeps_its_gradient():
    student, teacher = _logits()
    temperature = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    with shared_softmax():
        kd_loss(student, teacher, temperature=temperature).backward()
    assert temperature.grad != 0
