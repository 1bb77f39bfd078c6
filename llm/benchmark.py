"""Losses in chunks, and training steps of random models of GPT-2's sizes, for the benchmark."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eakd_det.benchmark.bench import Bench
from eakd_det.benchmark.measure import Builders, Step
from eakd_det.losses import (
    LanguageHead,
    chunked_loss,
    entropy_weight,
    forward_kl,
    skewed_forward_kl,
)

from . import benchmark_training
from .liger import is_available

CHUNK = 1024


class Sizes(NamedTuple):
    """Number of tokens, size of the vocabulary, and width of student and teacher."""

    tokens: int
    vocabulary: int
    student: int
    teacher: int


GPU_SIZES, CPU_SIZES = Sizes(8192, 50257, 768, 1600), Sizes(2048, 2000, 64, 96)


class Variant(NamedTuple):
    """A loss: its divergence, whether tokens have the EA weight, and its chunks.

    Attributes:
        chunk_size: tokens of a chunk; 0: all logits at once.
        compiled: an argument of `chunked_loss`.
    """

    divergence: Callable[..., Tensor] = forward_kl
    is_weighted: bool = True
    chunk_size: int = 0
    compiled: bool = False


VARIANTS = {
    "plain_kl": Variant(is_weighted=False),
    "plain_ea_kl": Variant(),
    "plain_ea_skewed": Variant(skewed_forward_kl),
    "chunked_256_ea_kl": Variant(chunk_size=256),
    "chunked_1024_kl": Variant(is_weighted=False, chunk_size=CHUNK),
    "chunked_1024_ea_kl": Variant(chunk_size=CHUNK),
    "chunked_1024_ea_skewed": Variant(skewed_forward_kl, chunk_size=CHUNK),
}
GPU_VARIANTS = {
    "compiled_256_ea_kl": Variant(chunk_size=256, compiled=True),
    "compiled_1024_kl": Variant(is_weighted=False, chunk_size=CHUNK, compiled=True),
    "compiled_1024_ea_kl": Variant(chunk_size=CHUNK, compiled=True),
    "compiled_1024_ea_skewed": Variant(skewed_forward_kl, chunk_size=CHUNK, compiled=True),
}


def run_language_models(bench: Bench) -> dict[str, Any]:
    """Measure the losses in float32 and bfloat16, and training steps; seconds by name."""
    sizes = GPU_SIZES if bench.on_gpu else CPU_SIZES
    results: dict[str, Any] = {}
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        results[f"losses_{name}"] = bench.steps(
            f"language_model_losses_{name}",
            loss_builders(sizes, dtype, bench.device),
            title=f"{sizes.tokens} tokens, vocabulary {sizes.vocabulary}, {name}",
            base="plain_ea_kl",
        )
    models = benchmark_training.GPU_SIZES if bench.on_gpu else benchmark_training.CPU_SIZES
    results["training"] = benchmark_training.measure_training(bench, CHUNK, models)
    return results


def loss_builders(sizes: Sizes, dtype: torch.dtype, device: torch.device) -> Builders:
    """Return name -> function that builds forward and backward pass of a loss, with its inputs."""
    variants = VARIANTS | (GPU_VARIANTS if device.type == "cuda" else {})
    builders = {
        name: lambda variant=variant: _build(sizes, dtype, device, _loss(variant))
        for name, variant in variants.items()
    }
    if is_available(device):
        builders[f"liger_{CHUNK}_kl"] = lambda: _build(sizes, dtype, device, _liger_loss())
    return builders


# (student, teacher, labels (N,)) -> scalar
HeadLoss = Callable[[LanguageHead, LanguageHead, Tensor], Tensor]


def _build(sizes: Sizes, dtype: torch.dtype, device: torch.device, loss: HeadLoss) -> Step:
    generator = torch.Generator(device).manual_seed(0)

    def head(width: int) -> LanguageHead:
        options = {"generator": generator, "dtype": dtype, "device": device}
        states = torch.randn(sizes.tokens, width, **options)
        return LanguageHead(states, torch.randn(sizes.vocabulary, width, **options) * 0.02)

    student, teacher = head(sizes.student), head(sizes.teacher)
    labels = torch.randint(sizes.vocabulary, (sizes.tokens,), generator=generator, device=device)
    trained = [student.states.requires_grad_(), student.weight.requires_grad_()]

    def step() -> Tensor:
        for x in trained:
            x.grad = None
        value = loss(student, teacher, labels)
        value.backward()
        return value.detach()

    return step


@cache  # torch compiles a function once, and each variant is built twice
def _loss(variant: Variant) -> HeadLoss:
    def token_loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        weight = entropy_weight(student_logits, teacher_logits) if variant.is_weighted else None
        return variant.divergence(
            student_logits, teacher_logits, labels, weight=weight, reduction="none"
        )

    def plain(student: LanguageHead, teacher: LanguageHead, labels: Tensor) -> Tensor:
        logits = (head.states @ head.weight.T for head in (student, teacher))
        return token_loss(*logits, labels).mean()

    def chunked(student: LanguageHead, teacher: LanguageHead, labels: Tensor) -> Tensor:
        options = {"chunk_size": variant.chunk_size, "compiled": variant.compiled}
        return chunked_loss(token_loss, student, teacher, labels, **options)

    return chunked if variant.chunk_size else plain


def _liger_loss() -> HeadLoss:
    """Return Liger-Kernel's forward KL, without a weight."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss  # optional

    loss = LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.0, chunk_size=CHUNK
    )

    def of_heads(student: LanguageHead, teacher: LanguageHead, labels: Tensor) -> Tensor:
        return loss(student.states, student.weight, teacher.states, teacher.weight, labels)

    return of_heads
