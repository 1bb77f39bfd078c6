"""Check that weights are finite."""

from collections.abc import Iterable

import torch
from torch import Tensor

from eakd_det.utils.errors import UserError
from eakd_det.utils.precision import HALVES

FLOATS = (torch.float64, torch.float32, *HALVES.values())


def non_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Return the names of the tensors with NaN or infinite values, with one device sync.

    Args:
        tensors: names and tensors on one device; other dtypes than floats are skipped.
    """
    floats = {name: x for name, x in tensors if x.dtype in FLOATS and not x.is_meta}
    if not floats:
        return []
    flags = torch.stack([x.detach().isfinite().all() for x in floats.values()]).tolist()
    return [name for name, is_finite in zip(floats, flags, strict=True) if not is_finite]


def check_finite(tensors: Iterable[tuple[str, Tensor]], source: str) -> None:
    """Raise if weights, which would make every output NaN, are not finite.

    Args:
        source: configuration key and its value, for the message.

    Raises:
        UserError: a value is NaN or infinite.
    """
    bad = non_finite(tensors)
    if bad:
        raise UserError(
            f"{source} has NaN or infinite values in {len(bad)} of its tensors, {bad[0]} the first "
            "of them: use another checkpoint."
        )
