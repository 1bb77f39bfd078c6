"""Log-softmax that several losses on the same logits can share."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.nn import functional as F

from .reduction import at_least_float32

_shared: ContextVar[dict | None] = ContextVar("shared_softmax", default=None)


@contextmanager
def shared_softmax() -> Iterator[None]:
    """Compute the log-softmax of one tensor at one temperature only once in the with-block.

    Meant for the losses and weights of one step: results are kept until the block ends.
    """
    token = _shared.set({})
    try:
        yield
    finally:
        _shared.reset(token)


def log_softmax(
    logits: Tensor, temperature: float | Tensor = 1.0, *, constant: bool = False
) -> Tensor:
    """log softmax(logits / temperature) over the last axis, at least float32.

    Args:
        logits: (..., C).
        temperature: divides the logits; a tensor gets a gradient, and the result is not shared.
        constant: compute without a gradient in the logits.

    Returns:
        (..., C).
    """
    # Compiled code computes equal softmaxes once by itself.
    shared = None if torch.compiler.is_compiling() else _shared.get()
    if shared is None or isinstance(temperature, Tensor):
        logits = logits.detach() if constant else logits
        return F.log_softmax(at_least_float32(logits) / temperature, dim=-1)
    key = id(logits), logits._version, temperature
    if key not in shared:
        with torch.enable_grad():  # weights are computed first, without gradients
            log_p = F.log_softmax(at_least_float32(logits) / temperature, dim=-1)
        shared[key] = logits, log_p  # keep the logits alive: another tensor could get their id
    log_p = shared[key][1]
    return log_p.detach() if constant or not torch.is_grad_enabled() else log_p
