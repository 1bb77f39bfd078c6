import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import (
    CurriculumTemperature,
    curriculum_strength,
    entropy,
    entropy_weight,
    kd_loss,
    standardize,
)
from tests.golden import PRECISIONS, golden, golden_case

from .test_ctkd import temperature_at

SCHEDULES = ["scheduleA", "scheduleB"]
CASES = ["case0", "case1", "case2", "case3"]
INPUTS = {
    *("student", "teacher", "target", "t_start", "t_range", "H_ub", "t", "gamma", "alpha"),
    *("loops", "epoch", "max", "min", "param"),
}
LINEAR = {"lambda_linear": "no published configuration uses the linear curriculum"}
LEARNING_RATE, WEIGHT_DECAY = 0.05, 5e-4  # of the one step of SGD on u


def _kd_figures(arrays, dtype):
    """Our values of the arrays of a case, by name."""
    common = golden_case("ctkd", "")
    student, teacher = (common[name].to(dtype) for name in ("student", "teacher"))
    student.requires_grad_()
    module = temperature_at(arrays["param"].item(), dtype)
    strength = curriculum_strength(arrays["epoch"].item())
    ce = torch.nn.functional.cross_entropy(student, common["target"])
    weight = entropy_weight(student, teacher, temperature=common["t"].item())

    def kd(strength=strength, logits=(student, teacher), **options):
        return kd_loss(*logits, temperature=module(strength), **options)

    losses = {
        "kl": kd(),
        "er_kl": kd(weight=entropy(teacher, temperature=4.0)),
        "ea_kl": kd(weight=weight),
        "ls_kl": kd(logits=(standardize(student), standardize(teacher))),
        "total": common["gamma"].item() * ce + common["alpha"].item() * kd(),
    }
    figures = {
        "lam": torch.tensor(strength, dtype=dtype),
        "T": module(strength),
        "kl_per_sample": kd(reduction="none"),
        "kl_grad_param_plain": torch.autograd.grad(kd(1.0), module.u)[0],
    }
    for name, loss in losses.items():
        gradients = torch.autograd.grad(loss, [student, module.u], retain_graph=True)
        figures |= {
            name: loss,
            f"{name}_grad_student": gradients[0],
            f"{name}_grad_param": gradients[1],
        }
    optimizer = torch.optim.SGD(
        module.parameters(), lr=LEARNING_RATE, momentum=0.9, weight_decay=WEIGHT_DECAY
    )
    losses["total"].backward()
    optimizer.step()
    return figures | {"param_after_sgd": module.u}


def _compare(figures, arrays, dtype):
    """Compare every array with our figure of its name."""
    assert arrays.keys() - INPUTS - LINEAR.keys() == figures.keys()
    for name, figure in figures.items():
        assert figure.dtype == dtype
        assert_close(
            figure.detach().double(),
            arrays[name],
            rtol=PRECISIONS[dtype],
            # Its log(p + 1e-10) makes the weights low by up to 2 C * 1e-10, of a KL of up to 20.
            atol=PRECISIONS[dtype] + (4e-7 if name == "w" or name.startswith("ea") else 0.0),
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_released_code(case, dtype):
    arrays = golden_case("ctkd", case)
    _compare(_kd_figures(arrays, dtype), arrays, dtype)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_released_curriculum(schedule):
    arrays = golden_case("ctkd", schedule)
    epochs = arrays["loops"].item()
    strengths = [curriculum_strength(epoch, epochs=epochs) for epoch in arrays["epoch"].tolist()]
    _compare({"lambda_cos": torch.tensor(strengths, dtype=torch.float64)}, arrays, torch.float64)


def test_released_beginning():
    arrays = golden_case("ctkd", "")
    student, teacher = arrays["student"], arrays["teacher"]
    module = CurriculumTemperature().double()
    figures = {
        "default_param_init": module.u,
        "default_T_init": module(0.0),
        "w": entropy_weight(student, teacher, temperature=arrays["t"].item()),
        "er_entropy_t4": entropy(teacher, temperature=4.0),
        "ce": torch.nn.functional.cross_entropy(student, arrays["target"]),
    }
    _compare(figures, arrays, torch.float64)
    assert module(0.0).item() == pytest.approx(
        arrays["t_start"].item() + arrays["t_range"].item() / (1 + torch.e**-1)
    )


def test_no_released_figure_is_forgotten():
    assert {name.rpartition(".")[0] for name in golden("ctkd")} == {"", *SCHEDULES, *CASES}
