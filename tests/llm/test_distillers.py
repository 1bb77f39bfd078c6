"""The loss of a token, which torch compiles without its sums."""

import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import chunked_loss, entropy_weight, forward_kl
from llm.config import language_config
from llm.distillers import TokenObjective
from tests.losses.test_chunked import gradients, make_heads


def make_objective(*methods, mode="full", **options):
    node = language_config().DISTILL
    node.METHODS, node.EA.ENABLED, node.EA.MODE = methods, mode != "off", mode
    if mode == "off":
        node.EA.MODE = "full"
    for key, value in options.items():
        node[key] = value
    return TokenObjective(node)


def compute(objective, heads, compiled):
    """Return the loss, its gradients and the sums."""
    value = chunked_loss(
        objective.per_token,
        *heads,
        chunk_size=4,
        num_tokens=31,
        compiled=compiled,
        collect=objective.add,
    )
    found = [value.detach(), *gradients(value, heads[0])], dict(objective.sums)
    objective.sums.clear()
    return found


def assert_compiles(objective):
    heads = make_heads()
    (actual, sums), (expected, expected_sums) = (
        compute(objective, heads, c) for c in (True, False)
    )
    for a, e in zip(actual, expected, strict=True):
        assert_close(a, e, atol=1e-5, rtol=1e-5)
    assert_close(sums, expected_sums)
    assert sums["tokens"] == (heads[2] != -100).sum()


def test_sums_are_those_of_the_plain_form():
    objective = make_objective("KD", "JSD")
    student, teacher, labels = make_heads()
    _, sums = compute(objective, (student, teacher, labels), compiled=False)
    counts = labels != -100
    logits = (head.states @ head.weight.T for head in (student, teacher))
    student_logits, teacher_logits = (x[counts] for x in logits)
    objective(student_logits + student.bias, teacher_logits, labels[counts])
    assert list(sums) == ["loss_kd", "loss_jsd", "loss_ce", "tokens", "weight"]
    assert_close(sums, objective.sums)


def test_weights_by_the_mean_of_a_step():
    """The sum of the weights that gives that mean is of w_EA, whatever it is divided by."""
    logits = torch.randn(2, 5, 11, generator=torch.Generator().manual_seed(0))
    full = entropy_weight(*logits)
    losses = forward_kl(*logits, torch.zeros(5, dtype=torch.int64), reduction="none")
    for step_mean in (None, torch.tensor(0.5)):
        mean = full.mean() if step_mean is None else step_mean
        for mode, weight in [("matched", mean.repeat(5)), ("normalized", full / mean)]:
            objective = make_objective("KD", mode=mode, CE_WEIGHT=0.0)
            objective.step_mean = step_mean
            assert_close(objective(*logits, torch.zeros(5, dtype=torch.int64)), weight * losses)
            assert_close(objective.sums["weight"], 5 * mean)


@pytest.mark.skipif(torch.__version__ < "2.7", reason="torch 2.6 fails on a CPU")
def test_a_compiled_objective():
    """A new objective with the same settings is not compiled again."""
    assert_compiles(make_objective("KD"))
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert_compiles(make_objective("KD"))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before


@pytest.mark.slow
@pytest.mark.skipif(torch.__version__ < "2.7", reason="torch 2.6 fails on a CPU")
@pytest.mark.parametrize(
    ("methods", "mode", "ce_weight"),
    [
        (("RKL", "SKLD"), "teacher", 0.0),
        (("SRKLD",), "off", 0.5),
        (("SYMMETRIC", "JSD"), "full", 1),
    ],
)
def test_compiled_methods(methods, mode, ce_weight):
    assert_compiles(make_objective(*methods, mode=mode, CE_WEIGHT=ce_weight))


@pytest.mark.slow
@pytest.mark.skipif(torch.__version__ < "2.7", reason="torch 2.6 fails on a CPU")
def test_the_weight_of_each_step_needs_no_compilation():
    objective = make_objective("KD", mode="matched")
    objective.step_mean = torch.tensor(1.5)
    assert_compiles(objective)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    objective.step_mean = torch.tensor(0.25)
    assert_compiles(objective)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before
