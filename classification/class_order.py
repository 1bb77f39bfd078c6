"""Weights of a checkpoint, with its classes in the order of the data's."""

import logging
import os
from collections.abc import Sequence

import torch
from torch import nn

from eakd_det.checkpoint.checkpointer import load_strictly
from eakd_det.checkpoint.safe_pickle import load_pth
from eakd_det.utils.errors import UserError, format_problems

from .models import permute_classes

logger = logging.getLogger(__name__)


def load_in_order(
    model: nn.Module, path: str, names: Sequence[str], *, image_size: int, key: str, side: str
) -> None:
    """Load a checkpoint, and permute the model's classes where its names are in another order.

    Args:
        path: argument of `load_strictly`.
        names: class names of the data; if they or the checkpoint's are empty, only the number of
            classes is compared.
        image_size: height and width of an image that the model takes.
        key, side: arguments of `load_strictly`; "KEY.WEIGHTS" is in the messages.

    Raises:
        UserError: the weights do not fit, or the checkpoint has other class names.
    """
    there = saved_names(path) if names else ()
    if there:
        check_same_names(there, names, f"{key}.WEIGHTS {path}")
    load_strictly(model, path, key=f"{key}.WEIGHTS", side=side)
    if there and tuple(there) != tuple(names):
        _permute(model, [there.index(name) for name in names], image_size)
        logger.info(
            "%s.WEIGHTS: the classes of %s are in another order and were mapped by name", key, path
        )


def saved_names(path: str) -> tuple[str, ...]:
    """Return the class names in a local .pth file, empty if it has none."""
    if not (path.endswith(".pth") and os.path.isfile(path)):
        return ()
    content = load_pth(path)
    return tuple(content.get("class_names", ())) if isinstance(content, dict) else ()


def check_same_names(there: Sequence[str], here: Sequence[str], path: str) -> None:
    """Raise UserError if a checkpoint has other class names than the data, in any order."""
    parts = [("checkpoint", {*there} - {*here}), ("data", {*here} - {*there})]
    lines = [f"only in the {part}: {', '.join(sorted(names))}" for part, names in parts if names]
    if lines:
        raise UserError(f"{path} has other classes than the data:\n{format_problems(lines)}")


@torch.no_grad()
def _permute(model: nn.Module, order: list[int], image_size: int) -> None:
    """Make class i of a model that which was its class order[i].

    Raises:
        UserError: the model's logits are not those of its last linear layer.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, image_size, image_size, generator=generator)
    expected = model.eval()(image)[:, order]
    permute_classes(model, order)
    if not torch.allclose(model(image), expected, rtol=1e-3, atol=1e-3):
        raise UserError(
            f"{type(model).__name__} does not end with a linear layer: its classes cannot be "
            "brought into the data's order. Name the data's classes so that they are in its order."
        )
    model.train()
