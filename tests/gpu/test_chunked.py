"""The chunked loss of language models: compiled, eager and Liger-Kernel's; its memory."""

import warnings

import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import LanguageHead, chunked_loss, entropy_weight, forward_kl
from tests.losses.divergence_forms import FORMS
from tests.losses.test_chunked import per_token

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 2e-2}  # relative to the largest value
GPT2 = 8192, 50257, 768, 1600  # tokens, vocabulary, widths of student and teacher
CHUNK = 1024
dtypes = pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
divergences = pytest.mark.parametrize(
    "divergence", [pytest.param(f, id=name) for name, (f, _) in FORMS.items()]
)


@pytest.fixture(autouse=True)
def nothing_compiled():
    """Forget what other tests have compiled: torch keeps a limited number of forms."""
    torch.compiler.reset()


def make(device, dtype, tokens=600, vocabulary=1001, width=48, teacher_width=64, bias=False):
    """Heads of student (with gradients) and teacher, and labels; ignored tokens among them."""
    generator = torch.Generator(device).manual_seed(0)

    def random(*size):
        x = torch.randn(size, generator=generator, device=device, dtype=torch.float32)
        return x.to(dtype)

    heads = [
        LanguageHead(random(2, tokens // 2, d), random(vocabulary, d) * 0.2)
        for d in (width, teacher_width)
    ]
    if bias:
        heads = [head._replace(bias=random(vocabulary)) for head in heads]
    for tensor in heads[0]:
        if tensor is not None:
            tensor.requires_grad_()
    shape = heads[0].states.shape[:2]
    labels = torch.randint(vocabulary, shape, generator=generator, device=device)
    labels[:, ::7] = -100
    return *heads, labels


def compute(loss, student, *arguments, **options):
    """Return the loss and its gradients."""
    value = chunked_loss(loss, student, *arguments, **options)
    return [value.detach(), *torch.autograd.grad(value, [x for x in student if x is not None])]


def assert_agree(actual, expected, tolerance):
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype and a.isfinite().all()
        assert_close(a, e, atol=tolerance * e.abs().max().item(), rtol=0)


@dtypes
@divergences
def test_compiled_and_eager_agree(device, full_float32, divergence, dtype):
    """With the EA weight; the last chunk is shorter."""
    loss, arguments = per_token(divergence, True), make(device, dtype, bias=True)
    both = [compute(loss, *arguments, chunk_size=128, compiled=c) for c in (True, False)]
    assert_agree(*both, TOLERANCES[dtype])


@pytest.mark.parametrize("compiled", [False, True])
def test_autocast(device, full_float32, compiled):
    loss, arguments = per_token(forward_kl, True), make(device, torch.float32)
    exact = compute(loss, *arguments, chunk_size=128)
    with torch.autocast(device.type, torch.bfloat16):
        half = compute(loss, *arguments, chunk_size=128, compiled=compiled)
    assert_agree(half, exact, 5e-2)


def num_synchronisations(function):
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            function()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_gpu_is_waited_for_once(cuda, compiled):
    """For the number of tokens."""
    loss, arguments = per_token(forward_kl, True), make(cuda, torch.bfloat16)

    def step():
        return compute(loss, *arguments, chunk_size=128, compiled=compiled)

    step()  # compiles
    once = num_synchronisations(arguments[-1].nonzero)
    assert once > 0
    assert num_synchronisations(step) == once


@pytest.fixture
def liger_loss():
    liger = pytest.importorskip("liger_kernel.chunked_loss")

    def compute(student, teacher, labels):
        loss = liger.LigerFusedLinearJSDLoss(
            weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.0, chunk_size=CHUNK
        )
        states = [head.states.flatten(0, 1) for head in (student, teacher)]
        value = loss(states[0], student.weight, states[1], teacher.weight, labels.flatten())
        return [value.detach(), *torch.autograd.grad(value, student[:2])]

    return compute


@dtypes
def test_agrees_with_liger_kernel(cuda, full_float32, liger_loss, dtype):
    """It computes the softmaxes of halves in halves."""
    student, teacher, labels = make(cuda, dtype)
    labels = labels.clamp(min=0)
    actual = compute(per_token(forward_kl, False), student, teacher, labels, compiled=True)
    assert_agree(actual, liger_loss(student, teacher, labels), 10 * TOLERANCES[dtype])


def peak_memory(function):
    """Return the bytes that a call needs above its inputs, the second time."""
    function()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    return torch.cuda.max_memory_allocated() - before


@dtypes
def test_memory_beside_liger_kernel(cuda, liger_loss, dtype):
    """With EA weights at most 1.3 times that of its loss, which has none."""
    loss, arguments = per_token(forward_kl, True), make(cuda, dtype, *GPT2)
    ours = peak_memory(lambda: compute(loss, *arguments, chunk_size=CHUNK, compiled=True))
    student, teacher, labels = arguments
    theirs = peak_memory(lambda: liger_loss(student, teacher, labels.clamp(min=0)))
    assert ours <= 1.3 * theirs


@dtypes
@divergences
def test_memory(cuda, divergence, dtype):
    """Two matrices of a chunk's logits, and the gradients: their sums in float32 and their cast."""
    tokens, vocabulary, width, _ = GPT2
    loss, arguments = per_token(divergence, True), make(cuda, dtype, *GPT2)
    needed = peak_memory(lambda: compute(loss, *arguments, chunk_size=CHUNK, compiled=True))
    size = torch.finfo(dtype).bits // 8
    logits, gradients = 2 * CHUNK * vocabulary * size, (vocabulary + tokens) * width
    assert needed <= 1.1 * (logits + gradients * (4 + size))


def test_functions_made_for_each_step_compile_once(device):
    arguments = make(device, torch.float32)
    statistics = torch._dynamo.utils.counters["stats"]
    before = statistics["unique_graphs"]
    for _ in range(3):

        def loss(student_logits, teacher_logits, labels):
            logits = student_logits, teacher_logits
            return forward_kl(*logits, labels, weight=entropy_weight(*logits), reduction="none")

        compute(loss, *arguments, chunk_size=128, compiled=True)
    assert statistics["unique_graphs"] == before + 1
