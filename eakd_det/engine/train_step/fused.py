"""Fused kernels of optimizers, which leave out a bad step without synchronising with the device."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

FUSED = (SGD, Adam, AdamW)  # whose kernels exist on a GPU and on a CPU
IMPLEMENTATION = ("fused", "foreach")  # keys of a parameter group that change no result


def fuse(optimizer: Optimizer) -> bool:
    """Use the fused kernels of an optimizer, if it has some.

    Returns:
        Whether it has: it is of FUSED, with Detectron2's gradient clipping or without, and its
        options and weights suit the kernels. A subclass with another step is left as it is.
    """
    if not _has_kernels(optimizer):
        return False
    for group in [optimizer.defaults, *optimizer.param_groups]:
        group.update(fused=True, foreach=False)
    if isinstance(optimizer, SGD):
        _fill_momenta(optimizer)
    return True


def _has_kernels(optimizer: Optimizer) -> bool:
    kind, groups = type(optimizer), optimizer.param_groups
    if kind.__name__.endswith("WithGradientClip"):  # Detectron2's: clips, then steps
        kind = kind.__base__
    # With a dampening the first step differs from one with momenta of 0.
    if kind not in FUSED or any(g["differentiable"] or g.get("dampening") for g in groups):
        return False
    weights = [p for group in groups for p in group["params"]]
    return len({p.device for p in weights}) == 1 and all(p.is_floating_point() for p in weights)


def step_unless(optimizer: Optimizer, is_skipped: Tensor) -> None:
    """Take the step of a fused optimizer, unless a scalar on its weights' device is true."""
    optimizer.grad_scale, optimizer.found_inf = None, is_skipped.float()
    optimizer.step()
    del optimizer.grad_scale, optimizer.found_inf


def _fill_momenta(optimizer: SGD) -> None:
    """Make SGD's missing momenta 0, now and after a state is loaded.

    A first step that is left out would leave them undefined, and the fused form refuses a weight
    whose first gradient comes after others'.
    """
    groups = optimizer.param_groups
    weights = [p for group in groups if group["momentum"] for p in group["params"]]

    def fill(optimizer: Optimizer) -> None:
        for p in weights:
            if optimizer.state[p].get("momentum_buffer") is None:
                optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)

    fill(optimizer)
    optimizer.register_load_state_dict_post_hook(fill)


def keep_implementation(optimizer: Optimizer) -> None:
    """Let a state that is loaded change neither the kernels of an optimizer nor its layout.

    A checkpoint holds the flags and the strides of the run that saved it, perhaps on another device
    or with another memory format.
    """
    optimizer.register_load_state_dict_pre_hook(_keep_flags)
    optimizer.register_load_state_dict_post_hook(_match_strides)


def _keep_flags(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any] | None:
    saved, own = state["param_groups"], optimizer.param_groups
    if len(saved) != len(own):
        return None  # an error of torch's follows
    flags = [{key: group[key] for key in IMPLEMENTATION if key in group} for group in own]
    groups = [{**group, **ours} for group, ours in zip(saved, flags, strict=True)]
    return {**state, "param_groups": groups}


def _match_strides(optimizer: Optimizer) -> None:
    for p, state in optimizer.state.items():
        for name, x in state.items():
            if isinstance(x, Tensor) and x.shape == p.shape and x.stride() != p.stride():
                state[name] = torch.empty_like(p, dtype=x.dtype).copy_(x)
