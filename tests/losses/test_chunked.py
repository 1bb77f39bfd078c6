import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from eakd_det.losses import LanguageHead, chunked_loss, entropy_weight, skewed_forward_kl

from .divergence_forms import FORMS

ROOT = Path(__file__).parents[2]
VOCABULARY, WIDTH, TEACHER_WIDTH = 37, 5, 9


def make_heads(dtype=torch.float32, bias=True, shape=(3, 7), seed=0):
    """Heads of student (with gradients) and teacher, and labels; ignored tokens among them."""
    generator = torch.Generator().manual_seed(seed)

    def random(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)

    student = LanguageHead(random(*shape, WIDTH), random(VOCABULARY, WIDTH), random(VOCABULARY))
    teacher = LanguageHead(random(*shape, TEACHER_WIDTH), random(VOCABULARY, TEACHER_WIDTH))
    if not bias:
        student = student._replace(bias=None)
    for tensor in student:
        if tensor is not None:
            tensor.requires_grad_()
    labels = torch.randint(VOCABULARY, shape, generator=generator)
    labels[torch.rand(shape, generator=generator) < 0.3] = -100
    return student, teacher, labels


def per_token(divergence, is_weighted):
    def token_loss(student_logits, teacher_logits, labels):
        weight = entropy_weight(student_logits, teacher_logits) if is_weighted else None
        logits = student_logits, teacher_logits
        return divergence(*logits, labels, weight=weight, reduction="none")

    return token_loss


def plain(divergence, is_weighted, student, teacher, labels, **options):
    logits = F.linear(*student), F.linear(*teacher)
    weight = entropy_weight(*logits) if is_weighted else None
    return divergence(*logits, labels, weight=weight, **options)


def gradients(value, student):
    return torch.autograd.grad(value, [x for x in student if x is not None])


@pytest.mark.parametrize("chunk_size", [1, 4, 1000])
@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("divergence", [pytest.param(f, id=name) for name, (f, _) in FORMS.items()])
def test_equals_the_plain_form(divergence, is_weighted, chunk_size):
    student, teacher, labels = make_heads()
    expected = plain(divergence, is_weighted, student, teacher, labels)
    actual = chunked_loss(
        per_token(divergence, is_weighted), student, teacher, labels, chunk_size=chunk_size
    )
    assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    for a, e in zip(gradients(3 * actual, student), gradients(3 * expected, student), strict=True):
        assert_close(a, e, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (2, 13), (5, 3), (11,)])
@pytest.mark.parametrize("bias", [False, True])
def test_odd_sizes(shape, bias):
    student, teacher, labels = make_heads(bias=bias, shape=shape, seed=3)
    arguments = (student, teacher, labels)
    expected = plain(skewed_forward_kl, True, *arguments, num_tokens=31)
    actual = chunked_loss(
        per_token(skewed_forward_kl, True), *arguments, chunk_size=3, num_tokens=31
    )
    assert_close(actual, expected, atol=1e-6, rtol=1e-5)
    for a, e in zip(gradients(actual, student), gradients(expected, student), strict=True):
        assert_close(a, e, atol=1e-6, rtol=1e-4)


def test_gradcheck():
    student, teacher, labels = make_heads(torch.float64)
    loss = per_token(skewed_forward_kl, False)
    assert torch.autograd.gradcheck(
        lambda *head: chunked_loss(loss, LanguageHead(*head), teacher, labels, chunk_size=4),
        tuple(student),
    )


def test_teacher_gets_no_gradient_and_a_frozen_head_none():
    student, teacher, labels = make_heads()
    for tensor in (teacher.states, teacher.weight):
        tensor.requires_grad_()
    student.weight.requires_grad_(False)
    chunked_loss(per_token(skewed_forward_kl, True), student, teacher, labels).backward()
    assert student.states.grad.any() and student.bias.grad.any()
    assert student.weight.grad is None
    assert teacher.states.grad is None and teacher.weight.grad is None


def test_shared_embeddings_get_both_gradients():
    """Tied weight of embedding and output head, as in GPT-2."""
    _, teacher, labels = make_heads()
    weight = torch.randn(VOCABULARY, WIDTH, generator=torch.Generator().manual_seed(1))
    weight.requires_grad_()
    tokens = labels.clamp(min=0)
    loss = per_token(skewed_forward_kl, True)

    def head():
        return LanguageHead(F.embedding(tokens, weight).tanh(), weight)

    (actual,) = torch.autograd.grad(
        chunked_loss(loss, head(), teacher, labels, chunk_size=5), weight
    )
    (expected,) = torch.autograd.grad(
        plain(skewed_forward_kl, True, head(), teacher, labels), weight
    )
    assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def test_without_gradients():
    student, teacher, labels = make_heads()
    loss = per_token(skewed_forward_kl, True)
    with torch.no_grad():
        value = chunked_loss(loss, student, teacher, labels)
    assert not value.requires_grad
    assert_close(value, chunked_loss(loss, student, teacher, labels, chunk_size=2).detach())


def test_no_token_gives_a_zero_in_the_graph():
    student, teacher, labels = make_heads()
    loss = per_token(skewed_forward_kl, True)
    value = chunked_loss(loss, student, teacher, torch.full_like(labels, -100), num_tokens=0)
    value.backward()
    assert value == 0
    assert not student.states.grad.any() and not student.weight.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_parameters_and_autocast(dtype):
    """Half parameters give what the plain form gives of their values; autocast stays finite."""
    student, teacher, labels = make_heads(dtype)
    loss = per_token(skewed_forward_kl, True)
    actual = chunked_loss(loss, student, teacher, labels, chunk_size=4)
    expected = plain(skewed_forward_kl, True, student, teacher, labels)
    assert actual.dtype == torch.float32
    assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    # A gradient on a half's logits is rounded to it, and so is each product of it.
    for a, e in zip(gradients(actual, student), gradients(expected, student), strict=True):
        assert a.dtype == dtype
        assert_close(a, e, atol=5e-3, rtol=5e-2)

    student, teacher, labels = make_heads()
    with torch.autocast("cpu", dtype=dtype):
        actual = chunked_loss(loss, student, teacher, labels, chunk_size=4)
        expected = plain(skewed_forward_kl, True, student, teacher, labels)
    assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    for a, e in zip(gradients(actual, student), gradients(expected, student), strict=True):
        assert a.dtype == torch.float32
        assert_close(a, e, atol=5e-3, rtol=5e-2)


class DeviceReads(TorchDispatchMode):
    """Lists the operations whose result has to be read from the device before the next one."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        reads = name in ("nonzero", "_local_scalar_dense", "masked_select", "equal")
        if reads or (name.startswith(("index", "_index")) and has_mask(args)):
            self.names.append(name)
        return function(*args, **(kwargs or {}))


def has_mask(args):
    indices = [i for a in args if isinstance(a, list | tuple) for i in a if i is not None]
    return any(isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in indices)


def test_a_device_is_waited_for_once():
    student, teacher, labels = make_heads()
    with DeviceReads() as reads:
        loss = chunked_loss(
            per_token(skewed_forward_kl, True), student, teacher, labels, chunk_size=4
        )
        gradients(loss, student)
    assert reads.names == ["nonzero"]


def test_other_values_are_collected():
    """The sums over the tokens of what the token loss returns beside the losses."""
    student, teacher, labels = make_heads()
    loss = per_token(skewed_forward_kl, True)

    def with_values(student_logits, teacher_logits, labels):
        weight = entropy_weight(student_logits, teacher_logits)
        return loss(student_logits, teacher_logits, labels), {"weight": weight, "labels": labels}

    collected = []
    arguments = (student, teacher, labels)
    value = chunked_loss(with_values, *arguments, chunk_size=4, collect=collected.append)
    assert value.equal(chunked_loss(loss, *arguments, chunk_size=4))
    counts = labels != -100
    weight = entropy_weight(F.linear(*student), F.linear(*teacher))[counts]
    assert len(collected) == -(-len(weight) // 4)
    assert_close(sum(sums["weight"] for sums in collected), weight.sum())
    assert sum(sums["labels"] for sums in collected) == labels[counts].sum()
    assert not any(x.requires_grad for sums in collected for x in sums.values())


def test_refuses():
    student, teacher, labels = make_heads()
    call = partial(chunked_loss, per_token(skewed_forward_kl, False))
    with pytest.raises(ValueError, match="chunk_size must be 1 or more, got 0"):
        call(student, teacher, labels, chunk_size=0)
    with pytest.raises(ValueError, match="vocabulary has 37 tokens and the teacher's 36"):
        call(student, teacher._replace(weight=teacher.weight[:-1]), labels)
    with pytest.raises(ValueError, match=r"student's states must have shape \(3, 6, 5\)"):
        call(student, teacher, labels[:, 1:])


MEASURE = """
import json, resource, sys
import torch
from torch.nn import functional as F
from eakd_det.losses import LanguageHead, chunked_loss
from tests.losses.test_chunked import per_token, plain, skewed_forward_kl

torch.manual_seed(0)
tokens, vocabulary, width = 4096, 50257, 64
student = LanguageHead(torch.randn(tokens, width), torch.randn(vocabulary, width))
teacher = LanguageHead(torch.randn(tokens, width), torch.randn(vocabulary, width))
for tensor in student[:2]:
    tensor.requires_grad_()
labels = torch.randint(vocabulary, (tokens,))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.argv[1] == "plain":
    loss = plain(skewed_forward_kl, True, student, teacher, labels)
else:
    loss = chunked_loss(per_token(skewed_forward_kl, True), student, teacher, labels)
loss.backward()
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"loss": loss.item(), "mib": (after - before) / 1024}))
"""


@pytest.mark.slow
def test_peak_memory_is_at_most_a_quarter():
    """4096 tokens, vocabulary of 50257; each form runs in its own process, EA weight included."""
    results = []
    for form in ("plain", "chunked"):
        command = [sys.executable, "-c", MEASURE, form]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        results.append(json.loads(result.stdout.splitlines()[-1]))
    whole, parts = results
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    print(f"plain {whole['mib']:.0f} MiB, chunked {parts['mib']:.0f} MiB")
    assert parts["mib"] <= whole["mib"] / 4
