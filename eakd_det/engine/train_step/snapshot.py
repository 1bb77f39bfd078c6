"""Copies of tensors that can be restored without synchronising with the device."""

from collections.abc import Hashable
from typing import Any

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn


class Snapshot:
    """Copies of named tensors, in a few operations however many tensors there are."""

    @torch.no_grad()
    def __init__(self, tensors: dict[Hashable, Tensor]):
        """
        Args:
            tensors: name -> tensor, of any types and devices.
        """
        groups: dict[Any, list[Hashable]] = {}
        for name, x in tensors.items():
            groups.setdefault((x.dtype, x.device, x.dim() == 0), []).append(name)
        self.groups = [(names, _join([tensors[n] for n in names])) for names in groups.values()]

    @torch.no_grad()
    def restore(self, tensors: dict[Hashable, Tensor], condition: Tensor) -> None:
        """Copy the values back in place if the condition holds.

        Args:
            tensors: the present ones under the same names; tensors that are new become 0.
            condition: scalar on the tensors' device.
        """
        known = set()
        for names, before in self.groups:
            now = [tensors[name] for name in names]
            chosen = torch.where(condition, before, _join(now))
            torch._foreach_copy_(now, _divide(chosen, now))
            known.update(names)
        for name in tensors.keys() - known:
            tensors[name].masked_fill_(condition, 0)


def _join(tensors: list[Tensor]) -> Tensor:
    """Copy tensors into one of one dimension; all of them, or none, are scalars."""
    if tensors[0].dim() == 0:
        return torch.stack(tensors)
    return torch.cat([x if x.dim() == 1 else x.flatten() for x in tensors])


def _divide(joined: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    """Undo `_join`, as views."""
    if tensors[0].dim() == 0:
        return list(joined.unbind())
    parts = joined.split([x.numel() for x in tensors])
    return [p if x.dim() == 1 else p.view_as(x) for p, x in zip(parts, tensors, strict=True)]


def running_buffers(model: nn.Module, device: torch.device) -> list[tuple[nn.Module, str]]:
    """List a model's buffers that a forward pass may change, as modules and names in them.

    They are running statistics and others that a checkpoint holds. Frozen batch norms are left
    out, and so is what a model makes itself: anchors, the mean and standard deviation of pixels.
    """
    return [
        (module, name)
        for module in model.modules()
        if not isinstance(module, FrozenBatchNorm2d)
        for name, x in module.named_buffers(recurse=False)
        if x.device == device and name not in module._non_persistent_buffers_set
    ]


def optimized(optimizer: torch.optim.Optimizer) -> dict[Hashable, Tensor]:
    """Collect the tensors that an optimizer step changes: weights with a gradient, and their state.

    State on another device than its weight, such as Adam's step count, is not among them.
    """
    found = {}
    for i, p in enumerate(with_gradient(optimizer)):
        found[i, "weight"] = p.detach()
        for name, x in optimizer.state.get(p, {}).items():
            if isinstance(x, Tensor) and x.device == p.device:
                found[i, "state", name] = x
    return found


def with_gradient(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return an optimizer's weights that have a gradient."""
    groups = [group["params"] for group in optimizer.param_groups]
    return [p for group in groups for p in group if p.grad is not None]
