"""Working precision and reduction over samples, shared by all losses."""

import torch
from torch import Tensor


def at_least_float32(logits: Tensor) -> Tensor:
    """Cast half precisions, which lose a KL below 1e-3, to float32; float64 stays float64."""
    return logits if logits.dtype == torch.float64 else logits.float()


def reduce_samples(loss: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    """Weight and reduce a per-sample loss.

    Args:
        loss: (N,) loss of each sample.
        weight: (N,) factor of each sample, or None. It is a constant: no gradient flows into it.
        reduction: "mean" divides the sum by N, not by the sum of the weights; "none" gives (N,).

    Returns:
        A scalar, or (N,). The mean over no samples is a zero that is joined to the graph.

    Raises:
        ValueError: `weight` is not (N,), or `reduction` is unknown.
    """
    if weight is not None:
        if weight.shape != loss.shape:
            raise ValueError(
                f"weight must have one value for each of the {len(loss)} samples, "
                f"got shape {tuple(weight.shape)}"
            )
        loss = loss * weight.detach()
    if reduction == "none":
        return loss
    if reduction == "mean":
        return loss.sum() / max(len(loss), 1)
    raise ValueError(f'reduction must be "mean" or "none", got {reduction!r}')
