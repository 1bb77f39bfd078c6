"""Checks of the modules that DISTILL.FEATURES names, in a forward pass."""

import difflib
from collections.abc import Callable
from typing import Any

import torch
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from eakd_det.utils.errors import UserError

from .recorder import record

MOST_NAMES = 5  # that a message lists


@torch.no_grad()
def find_maps(
    model: nn.Module, side: str, names: list[str], run: Callable[[], Any], num_images: int
) -> list[ShapeSpec]:
    """Return channels and strides of the maps that named modules return in a forward pass.

    Args:
        model: with a backbone.
        side: "student" or "teacher", for messages.
        names: of the modules.
        run: the forward pass, in evaluation.
        num_images: its batch size.

    Raises:
        UserError: a name is unknown, or its module does not return one map of the images.
    """
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            raise UserError(
                f"DISTILL.FEATURES: the {side} has no module {name!r}; "
                f"{_nearest(name, list(modules))}."
            )
    outputs: dict[str, list] = {name: [] for name in names}
    versions = {}

    def hook(name: str) -> Callable:
        def store(_: nn.Module, __: tuple, output: Any) -> None:
            outputs[name].append(output)
            versions[name] = output._version if isinstance(output, Tensor) else 0

        return store

    handles = [modules[name].register_forward_hook(hook(name)) for name in outputs]
    try:
        with record(backbone=model.backbone) as calls:
            run()
    finally:
        for handle in handles:
            handle.remove()
    padded_size = calls["backbone"][0].args[0].shape[-2:]
    specs = []
    for name in names:
        x = only_map(outputs[name], name, side, num_images)
        if x._version != versions[name]:
            raise UserError(
                f"DISTILL.FEATURES: the output of the {side}'s {name} is changed in place by a "
                "later operation (an addition or a ReLU, for example): name the module around it."
            )
        specs.append(_spec(x, padded_size, name, side))
    return specs


def _spec(x: Tensor, padded_size: torch.Size, name: str, side: str) -> ShapeSpec:
    """Return channels and stride of a map of images of a size.

    Raises:
        UserError: its last two dimensions are not proportional to the images'.
    """
    heights, widths = zip(padded_size, x.shape[2:], strict=True)
    stride = heights[0] / heights[1]
    if not 0.5 <= stride / (widths[0] / widths[1]) <= 2:
        raise UserError(
            f"DISTILL.FEATURES: the {side}'s {name} returns {_describe(x)} for images of "
            f"{padded_size[0]} x {padded_size[1]}, which is no map (images, channels, height, "
            "width): name another module."
        )
    return ShapeSpec(channels=x.shape[1], stride=round(stride))


def only_map(outputs: list[Any], name: str, side: str, num_images: int) -> Tensor:
    """Return the output of a module's only call, if it is a map of each image.

    Raises:
        UserError: there are more calls or none, or the output is something else.
    """
    start = f"DISTILL.FEATURES: the {side}'s {name} "
    if not outputs:
        reason = "; only its backbone runs" if side == "teacher" else ""
        raise UserError(f"{start}is not called in a forward pass{reason}: name another module.")
    if len(outputs) > 1:
        raise UserError(
            f"{start}is called {len(outputs)} times in a forward pass: name a module that is "
            "called once."
        )
    [x] = outputs
    if not (isinstance(x, Tensor) and x.dim() == 4 and len(x) == num_images):
        raise UserError(
            f"{start}returns {_describe(x)} for {num_images} images: name a module that returns "
            "one tensor (images, channels, height, width)."
        )
    return x


def _describe(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, dict):
        return f"a dict of {', '.join(map(str, output))}"
    if isinstance(output, list | tuple):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"


def _nearest(name: str, names: list[str]) -> str:
    """Describe the names that are nearest to a wrong one: its endings first."""
    ends = [known for known in names if known.endswith(f".{name}")]
    near = list(dict.fromkeys(ends + difflib.get_close_matches(name, names, MOST_NAMES)))
    if near:
        return f"the nearest are {', '.join(near[:MOST_NAMES])}"
    return f"its parts are {', '.join(known for known in names if known and '.' not in known)}"
