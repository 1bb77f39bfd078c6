"""What enters a network's output head, with logits of one token a sequence alone being made."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eakd_det.utils.errors import UserError


class HeadStates:
    """Filled by a forward pass inside `capture`.

    Attributes:
        states: (B, L, D), with their gradients.
    """

    states: Tensor


@contextmanager
def capture(head: nn.Linear) -> Iterator[HeadStates]:
    """Within the block, `head` hands over its input and is run on each sequence's first token.

    The forward pass of the whole network is the stock one, so that what wraps it (data-parallel
    training, gradient checkpointing) works as ever.
    """
    captured = HeadStates()

    def take(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        (captured.states,) = inputs
        return (captured.states[:, :1],)

    handle = head.register_forward_pre_hook(take)
    try:
        yield captured
    finally:
        handle.remove()


def check_head(head: nn.Module, states: Tensor, logits: Tensor, name: str) -> None:
    """Refuse a network whose logits are not its head's output.

    Args:
        states: (B, L, D) of `capture`.
        logits: (B, 1, V) that the network returned then.
        name: of the network, for the message.

    Raises:
        UserError: it scales or caps its logits, or its head is no linear layer.
    """
    if type(head) is nn.Linear:
        expected = F.linear(states[:, :1], head.weight, head.bias)
        tolerance = 1e-5 if expected.dtype == torch.float32 else 2e-2
        # NaN equals NaN here: the head is not to blame for it, and the loss will tell.
        if expected.shape == logits.shape and expected.float().allclose(
            logits.float(), rtol=tolerance, atol=tolerance, equal_nan=True
        ):
            return
    raise UserError(
        f"The logits of the {name} are not a linear head's output alone (some models scale or cap "
        "them), so they cannot be made in chunks: set DISTILL.CHUNK_SIZE 0."
    )
