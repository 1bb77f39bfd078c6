"""Language models: a step equals the CPU's, in chunks, in bfloat16 and with Liger-Kernel."""

import pytest
import torch

from eakd_det.losses import forward_kl, skewed_forward_kl
from llm.liger import liger_loss
from llm.training import fit
from tests.llm.test_trainer import assert_same, by_hand, step


@pytest.mark.parametrize("chunk_size", [0, 3])
@pytest.mark.parametrize(
    ("method", "divergence", "is_weighted"),
    [("KD", forward_kl, True), ("SKLD", skewed_forward_kl, False)],
)
def test_gradients_are_those_of_the_cpu(
    cfg, tokenizer, full_float32, method, divergence, is_weighted, chunk_size
):
    cfg.DISTILL.METHODS, cfg.DISTILL.EA.ENABLED = (method,), is_weighted
    cfg.DISTILL.CE_WEIGHT = 0.5
    got = step(cfg, DISTILL__CHUNK_SIZE=chunk_size)
    assert_same(got, by_hand(cfg, tokenizer, divergence, 0.5, is_weighted), 1e-3)


@pytest.mark.parametrize("chunk_size", [0, 3])
def test_bfloat16(cfg, full_float32, chunk_size):
    """The gradients point where float32's do."""
    exact, half = step(cfg), step(cfg, TRAINING__BF16=True, DISTILL__CHUNK_SIZE=chunk_size)
    for name, gradient in exact.items():
        assert half[name].isfinite().all()
        if gradient.norm() > 1e-3:
            cosine = torch.cosine_similarity(half[name].flatten(), gradient.flatten(), dim=0)
            assert cosine > 0.98, name


@pytest.mark.parametrize("method", ["KD", "RKL", "JSD"])
def test_liger_kernel_agrees(cfg, cuda, full_float32, monkeypatch, method):
    pytest.importorskip("liger_kernel")
    cfg.DISTILL.METHODS, cfg.DISTILL.EA.ENABLED, cfg.DISTILL.CHUNK_SIZE = (method,), False, 64
    assert liger_loss(cfg.DISTILL, {torch.float32}) is not None
    losses = {}
    for is_used in (True, False):
        monkeypatch.setattr("llm.building.is_available", lambda device, used=is_used: used)
        cfg.OUTPUT_DIR += f"-{is_used}"
        losses[is_used] = fit(cfg)["train_loss"]
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)
