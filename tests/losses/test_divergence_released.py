"""Divergences compared with the figures of DistiLLM's released code.

Its forward forms leave out the teacher's entropy: `fkl` and `sfkl` are sum p log p below ours, and
the gradients are equal.
"""

from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import (
    entropy_weight,
    forward_kl,
    reverse_kl,
    skewed_forward_kl,
    skewed_reverse_kl,
)
from tests.golden import PRECISIONS, golden, golden_case

DIVERGENCES = {
    "fkl": forward_kl,
    "rkl": reverse_kl,
    "sfkl": skewed_forward_kl,
    "srkl": skewed_reverse_kl,
}
IN_FLOAT32 = {f"{name}_mean_f32": f"{name}_mean" for name in DIVERGENCES}
INPUTS = {"student", "teacher", "label", "alpha", "H_ub", "t"}


def _inputs(case, dtype):
    arrays = golden_case("llm", case)
    return SimpleNamespace(
        student=arrays["student"].to(dtype).requires_grad_(),
        teacher=arrays["teacher"].to(dtype),
        labels=arrays["label"],
        counts=arrays["label"] != -100,
        alpha=arrays["alpha"].item(),
    )


def _loss(c, name, **options):
    if name.startswith("s"):
        options["alpha"] = c.alpha
    return DIVERGENCES[name](c.student, c.teacher, c.labels, **options)


def _negative_entropy(c):
    """Sum p log p of the teacher, (B, L), over the vocabulary entries that both sides have."""
    log_p = c.teacher.log_softmax(dim=-1)
    is_left_out = c.student.isinf() | c.teacher.isinf()
    return (log_p.exp() * log_p.masked_fill(is_left_out, 0)).sum(dim=-1)


def _figure(c, array, weight=None):
    """Our value of an array of the file."""
    array = IN_FLOAT32.get(array, array)
    name, _, kind = array.removeprefix("ea_").removeprefix("true_").partition("_")
    if kind == "grad":
        return torch.autograd.grad(_loss(c, name, weight=weight), c.student)[0]
    per_token = _loss(c, name, weight=weight, reduction="none")
    if name in ("fkl", "sfkl") and "true" not in array:
        left_out = _negative_entropy(c) if weight is None else weight * _negative_entropy(c)
        per_token = per_token - left_out
    return per_token if kind == "per_token" else per_token[c.counts].mean()


def _compare(c, arrays, dtype, weight=None):
    for array in arrays.keys() - INPUTS - {"w", "neg_entropy_teacher"}:
        expected = arrays[array].double()
        actual = _figure(c, array, weight).double()
        if array.endswith("_per_token"):  # the file has the ignored tokens, too
            expected, actual = expected[c.counts], actual[c.counts]
        tolerance = PRECISIONS[torch.float32] if "f32" in array else PRECISIONS[dtype]
        assert_close(
            actual,
            expected,
            atol=tolerance,
            rtol=tolerance,
            msg=lambda text, array=array: f"{array}: {text}",
        )


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("case", ["a", "b", "inf"])
def test_released_code(case, dtype):
    _compare(_inputs(case, dtype), golden_case("llm", case), dtype)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("temperature", ["t1", "t2", "t3"])
@pytest.mark.parametrize("case", ["a", "b"])
def test_ea_forms(case, temperature, dtype):
    c, arrays = _inputs(case, dtype), golden_case("llm", f"{case}.{temperature}")
    weight = entropy_weight(c.student, c.teacher, temperature=arrays["t"].item())
    tolerance = PRECISIONS[dtype]
    assert_close(weight.double(), arrays["w"], atol=tolerance, rtol=tolerance)
    _compare(c, arrays, dtype, weight)


def test_no_released_figure_is_forgotten():
    cases = {key.rpartition(".")[0] for key in golden("llm")}
    assert cases == {"a", "b", "inf", *(f"{c}.t{t}" for c in "ab" for t in (1, 2, 3))}
