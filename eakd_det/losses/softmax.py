"""Log-softmaxes, which several losses of the same logits can share."""

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
    """Within the block the log-softmax of one tensor at one temperature is computed once.

    For the losses and weights of one step: what was computed is held until the block ends.
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
        temperature: a tensor gets a gradient, and is not shared.
        constant: whether the logits get none.

    Returns:
        (..., C).
    """
    shared = _shared.get()
    if shared is None or isinstance(temperature, Tensor):
        logits = logits.detach() if constant else logits
        return F.log_softmax(at_least_float32(logits) / temperature, dim=-1)
    key = id(logits), logits._version, temperature
    if key not in shared:
        with torch.enable_grad():  # the weights ask first, without gradients
            log_p = F.log_softmax(at_least_float32(logits) / temperature, dim=-1)
        shared[key] = logits, log_p  # the logits too, lest another tensor gets their id
    log_p = shared[key][1]
    return log_p.detach() if constant or not torch.is_grad_enabled() else log_p
