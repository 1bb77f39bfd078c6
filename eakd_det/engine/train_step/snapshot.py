"""Values of tensors that may have to come back, without waiting for the device to say so."""

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor


class Snapshot:
    """Copies of named tensors: a few operations for all of them, however many there are."""

    @torch.no_grad()
    def __init__(self, tensors: dict[Hashable, Tensor]):
        """
        Args:
            tensors: name -> tensor, of any types and devices.
        """
        groups: dict[Any, list[Hashable]] = {}
        for name, x in tensors.items():
            groups.setdefault((x.dtype, x.device), []).append(name)
        self.groups = [(names, _flat(tensors, names)) for names in groups.values()]

    @torch.no_grad()
    def restore(self, tensors: dict[Hashable, Tensor], is_wanted: Tensor) -> None:
        """Put the values back in place, if `is_wanted`, a scalar of the tensors' device.

        Args:
            tensors: as they are now, under the same names; what was not there becomes 0.
        """
        known = set()
        for names, before in self.groups:
            now = [tensors[name] for name in names]
            chosen = torch.where(is_wanted, before, _flat(tensors, names))
            parts = chosen.split([x.numel() for x in now])
            torch._foreach_copy_(now, [p.view_as(x) for p, x in zip(parts, now, strict=True)])
            known.update(names)
        for name in tensors.keys() - known:
            tensors[name].masked_fill_(is_wanted, 0)


def _flat(tensors: dict[Hashable, Tensor], names: list[Hashable]) -> Tensor:
    return torch.cat([tensors[name].flatten() for name in names])


def optimized(optimizer: torch.optim.Optimizer) -> dict[Hashable, Tensor]:
    """Collect what a step of an optimizer changes: weights that have a gradient, and their state.

    State on another device than its weight stays out: Adam's count of steps.
    """
    found = {}
    for i, p in enumerate(with_gradient(optimizer)):
        found[i, "weight"] = p.detach()
        for name, x in optimizer.state.get(p, {}).items():
            if isinstance(x, Tensor) and x.device == p.device:
                found[i, "state", name] = x
    return found


def with_gradient(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """An optimizer's weights that have a gradient."""
    groups = [group["params"] for group in optimizer.param_groups]
    return [p for group in groups for p in group if p.grad is not None]
