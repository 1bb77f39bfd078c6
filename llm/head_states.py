"""Input states of a network's output head, for losses that compute logits in chunks."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eakd_det.utils.errors import UserError


class HeadStates:
    """Input states of an output head, set by a forward pass inside `capture`.

    Attributes:
        states: (B, L, D), part of the graph.
    """

    states: Tensor


@contextmanager
def capture(head: nn.Linear) -> Iterator[HeadStates]:
    """Record the input of `head` within the block, and run it on each sequence's first token only.

    The forward pass of the whole network is the stock one, so that wrappers (data-parallel
    training, gradient checkpointing) work as usual.
    """
    captured = HeadStates()

    def record(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        (captured.states,) = inputs
        return (captured.states[:, :1],)

    handle = head.register_forward_pre_hook(record)
    try:
        yield captured
    finally:
        handle.remove()


def check_head(head: nn.Module, states: Tensor, logits: Tensor, name: str) -> None:
    """Refuse a network whose logits are not the output of its linear head.

    Args:
        states: (B, L, D), recorded by `capture`.
        logits: (B, 1, V), returned by the network inside `capture`.
        name: name of the network, for the message.

    Raises:
        UserError: the network scales or caps its logits, or its head is not a linear layer.
    """
    if type(head) is nn.Linear:
        expected = F.linear(states[:, :1], head.weight, head.bias)
        tolerance = 1e-5 if expected.dtype == torch.float32 else 2e-2
        # NaN equals NaN here: the check of the loss reports it.
        if expected.shape == logits.shape and expected.float().allclose(
            logits.float(), rtol=tolerance, atol=tolerance, equal_nan=True
        ):
            return
    raise UserError(
        f"The logits of the {name} are not the output of a linear head (some models scale or cap "
        "them), so they cannot be computed in chunks: set DISTILL.CHUNK_SIZE 0."
    )
