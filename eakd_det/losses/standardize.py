"""Logit standardisation, LS (Sun et al., CVPR 2024, arXiv 2403.01427)."""

from torch import Tensor

from .reduction import at_least_float32

EPSILON = 1e-7  # the released code's; keeps constant logits finite


def standardize(logits: Tensor) -> Tensor:
    """Z-score of each sample's logits over the classes.

    Args:
        logits: (N, C), C at least 2.

    Returns:
        (N, C): (z - mean) / (std + 1e-7), std with the C - 1 denominator. Gradients pass through
        mean and std.

    Raises:
        ValueError: C is 1, where no standard deviation exists.
    """
    if logits.shape[-1] < 2:
        raise ValueError(f"standardize needs at least 2 classes, got logits {tuple(logits.shape)}")
    logits = at_least_float32(logits)
    mean = logits.mean(dim=-1, keepdim=True)
    std = logits.std(dim=-1, keepdim=True)
    return (logits - mean) / (std + EPSILON)
