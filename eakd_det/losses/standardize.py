"""Logit standardisation, LS (Sun et al., CVPR 2024, arXiv 2403.01427)."""

from torch import Tensor

from .reduction import at_least_float32

EPSILON = 1e-7  # the released code's
# Lower bound of the deviation. The gradient scales with 1 / deviation: with the epsilon alone, the
# first step on a head that is zero, or initialised as small as Detectron2's, destroys its weights.
FLOOR = 0.1


def standardize(logits: Tensor) -> Tensor:
    """Z-score of each sample's logits over the classes.

    Args:
        logits: (N, C), C at least 2.

    Returns:
        (N, C): (z - mean) / (max(std, 0.1) + 1e-7), std with the C - 1 denominator. Gradients pass
        through mean and std. The bound of 0.1 limits the magnification of logits of small
        deviation, and of their gradients, to a factor of 10.

    Raises:
        ValueError: C is 1, for which there is no standard deviation.
    """
    if logits.shape[-1] < 2:
        raise ValueError(f"standardize needs at least 2 classes, got logits {tuple(logits.shape)}")
    logits = at_least_float32(logits)
    mean = logits.mean(dim=-1, keepdim=True)
    std = logits.std(dim=-1, keepdim=True).clamp(min=FLOOR)
    return (logits - mean) / (std + EPSILON)
