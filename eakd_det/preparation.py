"""Whether a teacher that was made fast still says the same, told on the first batch."""

import logging

import torch
from torch import Tensor

TOLERANCE = 1e-3  # absolute, of logits in float32


@torch.no_grad()
def report_difference(before: list[Tensor], after: list[Tensor], *, what: str = "logits") -> None:
    """Log how far the prepared teacher's answers are from those of the same teacher unprepared.

    A warning, if it should be the same teacher and is not: both are in float32 and differ by more
    than TOLERANCE.

    Args:
        before, after: tensors of equal shapes.
        what: they are.
    """
    pairs = [(x, y) for x, y in zip(before, after, strict=True) if x.numel()]
    if not pairs:
        return
    difference = max((x.double() - y.double()).abs().max().item() for x, y in pairs)
    largest = max(x.abs().max().item() for x, _ in pairs)
    text = (
        f"Teacher prepared: its {what} of the first batch differ by at most {difference:.1e} from "
        f"those of the teacher as loaded (largest: {largest:.3g})"
    )
    is_exact = all(x.dtype == y.dtype == torch.float32 for x, y in pairs)
    logger = logging.getLogger(__name__)
    if is_exact and not difference <= TOLERANCE:
        logger.warning(f"{text}. To train with that one, set TEACHER.FAST to False.")
    else:
        logger.info(f"{text}.")
