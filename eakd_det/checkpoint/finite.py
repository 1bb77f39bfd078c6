"""Weights that are not finite."""

from collections.abc import Iterable

import torch
from torch import Tensor

from eakd_det.utils.errors import UserError
from eakd_det.utils.precision import HALVES

FLOATS = (torch.float64, torch.float32, *HALVES.values())


def non_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Names of those with NaN or infinite values; their device is read once.

    Args:
        tensors: by name, of one device; other numbers than floats are passed over.
    """
    floats = {name: x for name, x in tensors if x.dtype in FLOATS and not x.is_meta}
    if not floats:
        return []
    flags = torch.stack([x.detach().isfinite().all() for x in floats.values()]).tolist()
    return [name for name, is_finite in zip(floats, flags, strict=True) if not is_finite]


def refuse_non_finite(tensors: Iterable[tuple[str, Tensor]], source: str) -> None:
    """Refuse weights that make every output NaN.

    Args:
        source: the configuration key and what it names, for the message.

    Raises:
        UserError: a value is NaN or infinite.
    """
    bad = non_finite(tensors)
    if bad:
        raise UserError(
            f"{source} has NaN or infinite values in {len(bad)} of its tensors, {bad[0]} the first "
            "of them: take another checkpoint."
        )
