import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from eakd_det.losses import (
    CurriculumTemperature,
    curriculum_strength,
    entropy,
    entropy_weight,
    kd_loss,
    standardize,
)
from tests.golden import PRECISIONS, golden
from tests.losses.contract import make_logits


def test_it_begins_where_the_released_code_does():
    temperature = CurriculumTemperature()
    assert temperature(-1.0).item() == pytest.approx(1 + 20 / (1 + 2.718281828**-1))
    assert len(list(temperature.parameters())) == 1


def test_strength_turns_the_gradient_around():
    gradients = {}
    for strength in (1.0, -1.0, -0.25, 0.0):
        temperature = CurriculumTemperature()
        temperature(strength).backward()
        gradients[strength] = temperature.u.grad.item()
    plain = gradients[1.0]
    assert plain > 0
    assert gradients == pytest.approx({s: s * plain for s in gradients})


def test_strength_rises_along_a_cosine_and_stays():
    strengths = [curriculum_strength(epoch, epochs=8) for epoch in range(12)]
    assert strengths[0] == 0
    assert strengths[4] == pytest.approx(-0.5)
    assert strengths[8:] == [-1.0] * 4
    assert sorted(strengths, reverse=True) == strengths


def test_gradcheck_of_the_temperature_in_kd():
    student, teacher = make_logits((4, 5), 1).requires_grad_(), make_logits((4, 5), 2)
    weight = torch.linspace(0, 2, 4, dtype=torch.float64)

    def loss(u, logits):
        temperature = CurriculumTemperature().double()
        temperature.u = torch.nn.Parameter(u.detach())
        value = temperature.start + temperature.range * torch.sigmoid(u)
        return kd_loss(logits, teacher, temperature=value, weight=weight)

    u = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (u, student))


def test_an_optimizer_raises_the_students_loss_with_it():
    torch.manual_seed(0)
    student, teacher = make_logits((6, 5), 1), make_logits((6, 5), 2)
    temperature = CurriculumTemperature().double()
    optimizer = torch.optim.SGD(temperature.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        loss = kd_loss(student, teacher, temperature=temperature(-1.0))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses == sorted(losses) and losses[0] < losses[-1]


@pytest.mark.parametrize("name", ["scheduleA", "scheduleB"])
def test_released_schedules(name):
    """lambda_linear is the released code's other schedule, which no published script uses."""
    arrays = golden("ctkd")
    loops = int(arrays[f"{name}.loops"])
    assert (arrays[f"{name}.max"], arrays[f"{name}.min"]) == (0, -1)
    got = [curriculum_strength(int(e), epochs=loops) for e in arrays[f"{name}.epoch"]]
    assert_close(torch.tensor(got, dtype=torch.float64), arrays[f"{name}.lambda_cos"])


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("case", range(4))
def test_released_figures(case, dtype):
    """KL, its EA, ER and LS forms, the whole loss, and a step of SGD on the temperature."""
    arrays = golden("ctkd")
    own = {k.removeprefix(f"case{case}."): a for k, a in arrays.items() if f"case{case}." in k}
    tolerance = {"rtol": PRECISIONS[dtype], "atol": PRECISIONS[dtype]}
    student = arrays["student"].to(dtype).requires_grad_()
    teacher = arrays["teacher"].to(dtype)
    temperature = CurriculumTemperature(arrays["t_start"].item(), arrays["t_range"].item())
    temperature = temperature.to(dtype)
    with torch.no_grad():
        temperature.u.fill_(own.pop("param").item())
    strength = curriculum_strength(int(own.pop("epoch")))
    assert strength == pytest.approx(own.pop("lam").item(), abs=1e-12)
    weight = entropy_weight(student, teacher, temperature=arrays["t"].item())
    assert_close(weight.double(), arrays["w"], **tolerance)

    def kl(logits=(student, teacher), strength=strength, **options):
        return kd_loss(*logits, temperature=temperature(strength), **options)

    def total():
        return 0.1 * F.cross_entropy(student, arrays["target"]) + 0.9 * kl()

    assert (arrays["gamma"], arrays["alpha"]) == (0.1, 0.9)
    losses = {
        "kl": kl,
        "ea_kl": lambda: kl(weight=weight),
        "er_kl": lambda: kl(weight=entropy(teacher, temperature=4.0)),
        "ls_kl": lambda: kl((standardize(student), standardize(teacher))),
        "total": total,
    }
    got = {"T": temperature(strength), "kl_per_sample": kl(reduction="none")}
    for name, loss in losses.items():
        gradients = torch.autograd.grad(loss(), (student, temperature.u))
        got |= dict(zip((f"{name}_grad_student", f"{name}_grad_param"), gradients, strict=True))
        got[name] = loss()
    (got["kl_grad_param_plain"],) = torch.autograd.grad(kl(strength=1.0), temperature.u)
    optimizer = torch.optim.SGD([temperature.u], lr=0.05, momentum=0.9, weight_decay=5e-4)
    total().backward()
    optimizer.step()
    got["param_after_sgd"] = temperature.u
    assert got.keys() == own.keys()
    for name, expected in own.items():
        assert got[name].dtype == dtype
        assert_close(
            got[name].detach().double(), expected, **tolerance, msg=lambda t, n=name: f"{n}: {t}"
        )
