"""Liger-Kernel's loss equals ours; tests that need the package are skipped without it."""

import sys
from types import ModuleType

import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import LanguageHead, chunked_loss
from llm.config import language_config
from llm.distillers import TokenObjective
from llm.liger import is_available, liger_loss
from llm.training import fit

FLOAT32 = {torch.float32}
needs_liger = pytest.mark.usefixtures("installed")


@pytest.fixture
def installed():
    """Run Liger-Kernel's loss uncompiled."""
    pytest.importorskip("liger_kernel")
    with torch.compiler.set_stance("force_eager"):
        yield


def distill_node(*methods, **options):
    node = language_config().DISTILL
    node.METHODS, node.CHUNK_SIZE = methods, 4
    for key, value in options.items():
        node[key] = value
    return node


def make_heads(bias):
    torch.manual_seed(0)
    student = LanguageHead(torch.randn(3, 7, 5), torch.randn(37, 5), torch.randn(37))
    teacher = LanguageHead(torch.randn(3, 7, 9), torch.randn(37, 9), torch.randn(37))
    if not bias:
        student, teacher = student._replace(bias=None), teacher._replace(bias=None)
    for tensor in student:
        if tensor is not None:
            tensor.requires_grad_()
    labels = torch.randint(37, (3, 7))
    labels[torch.rand(3, 7) < 0.3] = -100
    return student, teacher, labels


@needs_liger
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("num_tokens", [None, 31])
@pytest.mark.parametrize("method", ["KD", "RKL", "JSD"])
def test_equals_ours(method, num_tokens, bias):
    node = distill_node(method, CE_WEIGHT=0.3)
    node[method].WEIGHT, node.JSD.BETA = 0.7, 0.2
    student, teacher, labels = make_heads(bias)
    expected = chunked_loss(
        TokenObjective(node), student, teacher, labels, chunk_size=4, num_tokens=num_tokens
    )
    actual = liger_loss(node, FLOAT32)(student, teacher, labels, num_tokens)
    assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    wanted = [x for x in student if x is not None]
    pairs = zip(
        torch.autograd.grad(2 * actual, wanted),
        torch.autograd.grad(2 * expected, wanted),
        strict=True,
    )
    for a, e in pairs:
        assert_close(a, e, atol=1e-5, rtol=1e-4)


class LossOfAGPU:
    """Stand-in for Liger-Kernel's loss: like the compiled one, divides by the number of tokens."""

    def __init__(self, **options):
        pass

    def __call__(self, states, weight, teacher_states, teacher_weight, labels, bias, teacher_bias):
        logits = states @ weight.T if bias is None else states @ weight.T + bias
        return logits.logsumexp(dim=1).sum() / len(labels)


@pytest.fixture
def stand_in(monkeypatch):
    for name in ("liger_kernel", "liger_kernel.chunked_loss"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["liger_kernel.chunked_loss"].LigerFusedLinearJSDLoss = LossOfAGPU


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("num_tokens", [None, 0, 7])
def test_no_token_gives_zero(stand_in, num_tokens, bias):
    """The zero is in the graph, whatever the values are: 0 times NaN would be NaN."""
    student, teacher, labels = make_heads(bias)
    with torch.no_grad():
        student.states[0, 0], student.weight[0] = torch.nan, torch.inf
    loss = liger_loss(distill_node("KD"), FLOAT32)
    assert loss(student, teacher, labels, num_tokens).isnan()
    value = loss(student, teacher, labels.fill_(-100), num_tokens)
    value.backward()
    assert value == 0
    for tensor in student:
        assert tensor is None or not tensor.grad.any()


@needs_liger
def test_unsupported_losses_are_computed_by_chunked_loss():
    assert liger_loss(distill_node("SKLD"), FLOAT32) is None
    assert liger_loss(distill_node("KD", "JSD"), FLOAT32) is None
    assert liger_loss(distill_node("KD"), {torch.float32, torch.bfloat16}) is None
    node = distill_node("KD")
    node.EA.ENABLED = True
    assert liger_loss(node, FLOAT32) is None
    assert not is_available(torch.device("cpu")) and is_available(torch.device("cuda"))


@needs_liger
def test_training_with_it_is_the_same(cfg, monkeypatch):
    """Train with our loss, then with Liger-Kernel's as if on a GPU."""
    cfg.DISTILL.EA.ENABLED, cfg.DISTILL.CHUNK_SIZE = False, 3
    expected = fit(cfg)["train_loss"]
    monkeypatch.setattr("llm.building.is_available", lambda device: True)
    calls = []

    def counted(*arguments):
        loss = liger_loss(*arguments)
        return lambda *inputs: calls.append(1) or loss(*inputs)

    monkeypatch.setattr("llm.building.liger_loss", counted)
    cfg.OUTPUT_DIR += "-liger"
    assert fit(cfg)["train_loss"] == pytest.approx(expected, rel=1e-5)
    assert calls == [1]
