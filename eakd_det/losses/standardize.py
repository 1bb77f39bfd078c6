"""Logit standardisation, LS (Sun et al., CVPR 2024, arXiv 2403.01427)."""

from torch import Tensor

from .reduction import at_least_float32

EPSILON = 1e-7  # the released code's
# Least deviation. The gradient is 1 / deviation, so that with the epsilon alone one step on the
# logits of a zeroed head, or of one as small as Detectron2's at first, throws its weights away.
FLOOR = 0.1


def standardize(logits: Tensor) -> Tensor:
    """Z-score of each sample's logits over the classes.

    Args:
        logits: (N, C), C at least 2.

    Returns:
        (N, C): (z - mean) / (max(std, 0.1) + 1e-7), std with the C - 1 denominator. Gradients pass
        through mean and std. Logits that deviate by less than 0.1 are magnified tenfold, and so are
        their gradients, instead of without bound.

    Raises:
        ValueError: C is 1, where no standard deviation exists.
    """
    if logits.shape[-1] < 2:
        raise ValueError(f"standardize needs at least 2 classes, got logits {tuple(logits.shape)}")
    logits = at_least_float32(logits)
    mean = logits.mean(dim=-1, keepdim=True)
    std = logits.std(dim=-1, keepdim=True).clamp(min=FLOOR)
    return (logits - mean) / (std + EPSILON)
