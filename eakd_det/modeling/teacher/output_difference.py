"""Difference between the outputs of a teacher before and after it was prepared."""

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor

TOLERANCE = 1e-3  # of logits in full precision; of maps relative to their largest value
# The same where convolutions round their factors to TF32's 10 bits, cuDNN's default. The logits of
# an R101-FPN with norms fused and unfused differ by 0.016 then, its maps by 8e-4.
TF32_TOLERANCE = 0.1
FULL = (torch.float32, torch.float64)
PIECE = 2**20  # values that are compared at a time


def log_output_difference(
    before: Sequence[Tensor], after: Sequence[Tensor], *, are_maps: bool = False
) -> float:
    """Log in one line how far a teacher's outputs differ before and after it was prepared.

    The line is a warning if they differ by more than `tolerance` or are not finite.

    Args:
        before, after: outputs for the same samples. Each tensor has the shape of its counterpart;
            the precision may differ.
        are_maps: whether they are feature maps, compared relative to their largest value, and not
            logits.

    Returns:
        The largest difference; 0 without samples.
    """
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a.numel()]
    difference = _max_of([_difference(a, b) for a, b in pairs])
    what = "logits differ"
    if are_maps:
        difference /= _max_of([torch.stack(a.aminmax()).abs().max() for a, _ in pairs])
        what = "maps differ, relative to the largest value,"
    log, advice = logging.getLogger(__name__).info, ""
    bound = max([tolerance(x.dtype, x.device.type) for x in (*before, *after)], default=math.inf)
    if bound < math.inf and not difference <= bound:
        log = logging.getLogger(__name__).warning
        advice = (
            f", more than {bound}: TEACHER.FAST False (and COMPILE 0 of a detector) leaves the "
            "teacher unchanged"
        )
    elif not math.isfinite(difference):
        log = logging.getLogger(__name__).warning
        advice = ", which are not finite: TEACHER.PRECISION float32 and bfloat16 have a wider range"
    log("The prepared teacher's %s by at most %.2g%s", what, difference, advice)
    return difference


def tolerance(dtype: torch.dtype, device: str) -> float:
    """Return the largest difference of outputs of this precision that is rounding.

    Half precisions have no bound. On other devices than the CPU the flags that allow TF32 are not
    read: torch raises an error where a program has set both its old and its new ones.
    """
    if dtype not in FULL:
        return math.inf
    return TOLERANCE if device == "cpu" or dtype == torch.float64 else TF32_TOLERANCE


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """Return the largest difference, a scalar, in pieces that need little memory."""
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    dim = min(1, a.dim() - 1)  # dim 0 would not cut a single image
    width = max(PIECE * a.shape[dim] // a.numel(), 1)
    pieces = zip(a.split(width, dim), b.split(width, dim), strict=True)
    return torch.stack([(x.to(dtype) - y.to(dtype)).abs_().max() for x, y in pieces]).max()


def _max_of(values: list[Tensor]) -> float:
    """Return the largest of scalars, NaN if one is, 0 of none, with one read from the device."""
    return torch.stack(values).max().item() if values else 0.0
