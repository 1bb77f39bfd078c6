import json
import math

import pytest
import torch
from torch.nn import functional as F

from eakd_det.analysis.calibration import (
    HIGHEST,
    LOWEST,
    calibration_result,
    fit_temperature,
    is_at_bound,
    measure_calibration,
    second_half,
)
from eakd_det.analysis.samples import Samples
from eakd_det.utils.errors import UserError

N, C = 600, 5


def random_samples(scale=1.0, seed=0):
    """Samples whose labels are drawn from the softmax of their logits, which are then scaled."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(N, C, generator=generator)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    return Samples(labels, scale * logits, torch.zeros(N, 1))


def test_temperature_of_two_classes_by_hand():
    """Three of four are right at a margin of 3: the best margin is log 3."""
    logits = torch.tensor([[3.0, 0.0]] * 4)
    assert fit_temperature(logits, torch.tensor([0, 0, 0, 1])) == pytest.approx(
        3 / math.log(3), rel=1e-4
    )


def test_the_gradient_vanishes_at_the_temperature():
    samples = random_samples(scale=3.0)
    temperature = torch.tensor(fit_temperature(samples.logits, samples.labels))
    temperature.requires_grad_()
    F.cross_entropy(samples.logits.double() / temperature, samples.labels).backward()
    assert temperature.grad.abs() < 1e-5
    assert temperature.item() == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("factor", [0.5, 4.0])
def test_temperature_grows_with_the_logits(factor):
    samples = random_samples()
    expected = factor * fit_temperature(samples.logits, samples.labels)
    found = fit_temperature(factor * samples.logits, samples.labels)
    assert found == pytest.approx(expected, rel=1e-4)


def test_bounds_of_the_temperature():
    labels = torch.arange(N) % C
    right, wrong = F.one_hot(labels, C).double(), F.one_hot(labels.roll(1), C).double()
    assert fit_temperature(right, labels) == pytest.approx(LOWEST, rel=1e-4)
    assert fit_temperature(wrong, labels) == pytest.approx(HIGHEST, rel=1e-4)
    assert is_at_bound(fit_temperature(right, labels))
    assert is_at_bound(fit_temperature(wrong, labels)) and not is_at_bound(1.0)


@pytest.mark.parametrize("margin", [3, 10, 30, 50])
def test_a_network_that_is_right_on_all_samples_is_at_the_bound(margin):
    """Its likelihood underflows to 0 long before."""
    labels = torch.arange(N) % C
    assert fit_temperature(margin * F.one_hot(labels, C), labels) == LOWEST


def test_halves_have_as_many_samples_of_each_class():
    labels = torch.tensor([0] * 7 + [1] * 8 + [2] + [3] * 4)[torch.randperm(20)]
    is_second = second_half(labels)
    assert is_second.sum() == 10
    for label in range(4):
        of_class = is_second[labels == label]
        assert abs(2 * of_class.sum() - len(of_class)) <= 1
    assert second_half(labels).equal(is_second)


def test_each_half_is_measured_at_the_temperature_of_the_other():
    samples = random_samples(scale=3.0)
    found = measure_calibration(samples)
    is_second = second_half(samples.labels)
    logits, labels = samples.logits.double(), samples.labels
    halves = [(logits[x], labels[x]) for x in (~is_second, is_second)]
    assert found.of_halves == tuple(fit_temperature(*half) for half in halves)
    assert found.of_halves[0] != found.of_halves[1]
    nll = [
        F.cross_entropy(z / t, y, reduction="sum").item()
        for (z, y), t in zip(halves, found.of_halves[::-1], strict=True)
    ]
    assert found.after.nll == pytest.approx(sum(nll) / N)
    assert found.before.nll == pytest.approx(F.cross_entropy(logits, labels).item())
    assert found.after.nll < found.before.nll
    assert found.after.reliability.ece < found.before.reliability.ece
    assert sum(found.after.reliability.number) == N


def test_one_temperature_leaves_the_accuracy():
    found = measure_calibration(random_samples(scale=3.0))
    assert sum(found.before.reliability.correct) == sum(found.after.reliability.correct)


def test_result(tmp_path):
    students = {"KD": random_samples(3.0), "sure": random_samples(9.0, seed=1)}
    found = {name: measure_calibration(of) for name, of in students.items()}
    result = calibration_result(found, {"KD": 71.0, "sure": 70.0}, [["KD", "sure"]])
    result.write(str(tmp_path))
    assert [row[:2] for row in result.rows] == [["KD", 71.0], ["sure", 70.0]]
    assert {len(row) for row in result.rows} == {len(result.headers)}
    numbers = json.loads((tmp_path / "calibration.json").read_text())
    of_kd = numbers["networks"]["KD"]
    assert numbers["samples"] == N and of_kd["top1"] == 71.0 and not of_kd["is_at_bound"]
    names = ("nll", "ece", "ece_by_chance")
    assert result.rows[0][2:5] == [of_kd["before"][name] for name in names]
    assert result.rows[0][6:] == [of_kd["after"][name] for name in names]
    temperatures = of_kd["temperature"], *of_kd["temperature_of_halves"]
    assert result.rows[0][5] == "{:.3f} ({:.3f}, {:.3f})".format(*temperatures)
    assert sum(x["number"] for x in of_kd["after"]["bins"]) == N
    figure, _ = result.figures["calibration"]
    assert [axes.get_title() for axes in figure.axes] == ["KD", "sure"]
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts[0].startswith(f"as trained: ECE {of_kd['before']['ece']:.1f} %")
    assert texts[1].startswith(f"temperature {of_kd['temperature']:.3g}: ECE")


def test_a_half_at_the_bound_is_named(caplog):
    """The other half has one error, so that all samples together have a temperature."""
    labels = torch.arange(N) % C
    logits = 30.0 * F.one_hot(labels, C)
    wrong = second_half(labels).nonzero()[0]
    logits[wrong] = logits[wrong].roll(1, dims=1)
    found = {"KD": measure_calibration(Samples(labels, logits, torch.zeros(N, 1)))}
    _, numbers = calibration_result(found, {"KD": 99.8}, [["KD"]]).figures["calibration"]
    of_kd = numbers["networks"]["KD"]
    assert (of_kd["is_at_bound"], of_kd["is_at_bound_of_halves"]) == (False, [True, False])
    (message,) = caplog.messages
    assert message.startswith("KD: the temperature of a half of the test images is at a bound")


def test_too_few_samples():
    some = random_samples()
    few = Samples(some.labels[:14], some.logits[:14], some.features[:14])
    with pytest.raises(UserError, match="14 samples are too few for 15 bins"):
        measure_calibration(few)
