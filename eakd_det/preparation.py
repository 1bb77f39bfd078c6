"""What preparing a frozen network changed in its answers."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

TOLERANCE = 1e-3  # of logits in full precision; of maps relative to their largest value
FULL = (torch.float32, torch.float64)


def report_difference(
    before: Sequence[Tensor], after: Sequence[Tensor], *, are_maps: bool = False
) -> float:
    """Log how far a teacher's answers moved when it was prepared: one line.

    It is a warning if they moved by more than TOLERANCE in full precision, or are no longer finite.

    Args:
        before, after: its answers on the same samples, in tensors of one shape each; they may
            differ in their precision.
        are_maps: whether they are feature maps, which may have any size, and not logits.

    Returns:
        The largest difference, of maps relative to the largest value; 0 of no samples.
    """
    pairs = [(a.double(), b.double()) for a, b in zip(before, after, strict=True) if a.numel()]
    difference = max([(a - b).abs().max().item() for a, b in pairs], default=0.0)
    what = "logits differ"
    if are_maps:
        difference /= max(a.abs().max().item() for a, _ in pairs)
        what = "maps differ, relative to the largest value,"
    is_full = all(x.dtype in FULL for x in (*before, *after))
    log, advice = logging.getLogger(__name__).info, ""
    if is_full and not difference <= TOLERANCE:
        log = logging.getLogger(__name__).warning
        advice = (
            f", more than {TOLERANCE}: TEACHER.FAST False (and COMPILE 0 of a detector) leaves it "
            "as it is"
        )
    elif not all(x.isfinite().all() for x in after):
        log = logging.getLogger(__name__).warning
        advice = ", which are not finite: TEACHER.PRECISION float32 and bfloat16 have a wider range"
    log("The prepared teacher's %s by at most %.2g%s", what, difference, advice)
    return difference
