"""A compiled chunk equals the eager one, which test_chunked.py compares with the plain form."""

import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import chunked_loss, entropy, forward_kl, skewed_forward_kl

from .divergence_forms import FORMS
from .test_chunked import gradients, make_heads, per_token

if torch.__version__ < "2.7":
    pytest.skip("torch 2.6 compiles no write into an input on a CPU", allow_module_level=True)

# of values and gradients, relative to the largest: float32 sums in another order; halves round
# each number of the slope
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float64: 1e-12}


@pytest.fixture(autouse=True)
def nothing_compiled():
    """Forget what other tests have compiled: torch keeps a limited number of forms."""
    torch.compiler.reset()


def num_graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def teacher_weighted(divergence):
    def token_loss(student_logits, teacher_logits, labels):
        logits = student_logits, teacher_logits
        return divergence(*logits, labels, weight=entropy(teacher_logits), reduction="none")

    return token_loss


def assert_equals_eager(loss, student, teacher, labels, **options):
    """Compare value and gradients of the compiled form with those of the eager one."""
    both = []
    for compiled in (True, False):
        value = chunked_loss(loss, student, teacher, labels, compiled=compiled, **options)
        both.append([value.detach(), *gradients(3 * value, student)])
    tolerance = TOLERANCES[student.states.dtype]
    if torch.is_autocast_enabled("cpu"):
        tolerance = TOLERANCES[torch.bfloat16]
    for actual, expected in zip(*both, strict=True):
        assert actual.dtype == expected.dtype and actual.isfinite().all()
        largest = expected.abs().max().item()
        assert_close(actual, expected, atol=tolerance * max(largest, 1e-3), rtol=0)


def test_equals_the_eager_form_and_compiles_once():
    """Numbers of tokens that differ, one among them, and none; entries of -inf; a new function."""
    before = num_graphs()
    for seed, shape in enumerate([(3, 7), (2, 13), (5, 3), (11,), (1, 1)]):
        student, teacher, labels = make_heads(shape=shape, seed=seed)
        with torch.no_grad():
            student.bias[-2:] = -torch.inf  # of a padded vocabulary
        loss = per_token(forward_kl, True)
        assert_equals_eager(loss, student, teacher, labels, chunk_size=4, num_tokens=31)
    labels = torch.full_like(labels, -100)
    value = chunked_loss(loss, student, teacher, labels, compiled=True, num_tokens=0)
    value.backward()
    assert value == 0 and not student.states.grad.any() and not student.weight.grad.any()
    assert num_graphs() == before + 1


@pytest.mark.slow
@pytest.mark.parametrize("form", ["plain", "full", "teacher"])
@pytest.mark.parametrize("divergence", [pytest.param(f, id=name) for name, (f, _) in FORMS.items()])
def test_every_divergence(divergence, form):
    """In float32, float64, bfloat16 and under autocast, with and without bias."""
    loss = per_token(divergence, form == "full")
    if form == "teacher":
        loss = teacher_weighted(divergence)
    for dtype in TOLERANCES:
        for bias in (False, True):
            arguments = make_heads(dtype, bias=bias, shape=(4, 15))
            assert_equals_eager(loss, *arguments, chunk_size=8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_equals_eager(loss, *make_heads(shape=(4, 15)), chunk_size=8)


@pytest.mark.slow
def test_gradcheck():
    student, teacher, labels = make_heads(torch.float64)
    loss = per_token(skewed_forward_kl, False)
    assert torch.autograd.gradcheck(
        lambda *head: chunked_loss(
            loss, type(student)(*head), teacher, labels, chunk_size=4, compiled=True
        ),
        tuple(student),
    )


@pytest.mark.slow
def test_frozen_parts_get_no_gradient():
    student, teacher, labels = make_heads()
    student.weight.requires_grad_(False)
    teacher.weight.requires_grad_()
    loss = per_token(forward_kl, True)
    chunked_loss(loss, student, teacher, labels, chunk_size=4, compiled=True).backward()
    assert student.states.grad.any() and student.bias.grad.any()
    assert student.weight.grad is None and teacher.weight.grad is None
    with torch.no_grad():
        value = chunked_loss(loss, student, teacher, labels, compiled=True)
    assert not value.requires_grad
