"""What preparing a frozen network changed in its answers."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

TOLERANCE = 1e-3  # absolute, of logits in full precision
FULL = (torch.float32, torch.float64)


def report_difference(
    before: Sequence[Tensor], after: Sequence[Tensor], *, what: str = "logits"
) -> float:
    """Log how far a teacher's answers moved when it was prepared: one line.

    It is a warning if they moved by more than TOLERANCE in full precision, or are no longer finite.

    Args:
        before, after: its answers on the same samples, in tensors of one shape each; they may
            differ in their precision.
        what: the answers are.

    Returns:
        The largest absolute difference; 0 of no samples.
    """
    pairs = [(a.double(), b.double()) for a, b in zip(before, after, strict=True) if a.numel()]
    difference = max([(a - b).abs().max().item() for a, b in pairs], default=0.0)
    is_full = all(x.dtype in FULL for x in (*before, *after))
    log, advice = logging.getLogger(__name__).info, ""
    if is_full and not difference <= TOLERANCE:
        log = logging.getLogger(__name__).warning
        advice = f", more than {TOLERANCE}: TEACHER.FAST False leaves it as it is"
    elif not all(x.isfinite().all() for x in after):
        log = logging.getLogger(__name__).warning
        advice = ", which are not finite: TEACHER.PRECISION float32 and bfloat16 have a wider range"
    log("The prepared teacher's %s differ by at most %.2g%s", what, difference, advice)
    return difference
