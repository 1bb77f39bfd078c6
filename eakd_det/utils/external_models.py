"""Models of timm and torchvision by name, with messages for the user."""

import difflib
import importlib.util
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from .errors import UserError


def import_timm(name: str) -> ModuleType:
    """Import timm for the model `name`, which may have the tag of its weights: "x.in1k".

    Raises:
        UserError: timm is not installed, or has no such model; the message has similar names.
    """
    if importlib.util.find_spec("timm") is None:
        raise UserError(f"timm:{name}: the package timm is not installed; pip install timm.")
    import timm

    check_name("timm", name, timm.list_pretrained() if "." in name else timm.list_models())
    return timm


def published_timm_config(name: str) -> Any:
    """Return timm's `PretrainedCfg` of a model's published weights.

    Raises:
        UserError: as `import_timm`, or the model has no published weights.
    """
    config = import_timm(name).get_pretrained_cfg(name, allow_unregistered=False)
    if config is None or not config.has_weights:
        raise UserError(f"timm:{name} has no published weights.")
    return config


def published_pixels(name: str) -> tuple[list[float], list[float]]:
    """Return the mean and standard deviation of RGB pixels that a timm model's weights expect.

    They are for values from 0 to 255, as MODEL.PIXEL_MEAN and MODEL.PIXEL_STD.

    Raises:
        UserError: as `published_timm_config`.
    """
    config = published_timm_config(name)
    mean, std = ([round(255 * x, 3) for x in values] for values in (config.mean, config.std))
    return mean, std


def check_name(library: str, name: str, known: Collection[str]) -> None:
    """Check that a library has a model.

    Raises:
        UserError: it has not; the message has similar names.
    """
    if name not in known:
        near = ", ".join(difflib.get_close_matches(name, known, 5)) or "none"
        raise UserError(f"{library}:{name}: there is no such model. Similar names: {near}.")


@contextmanager
def downloading(name: str, otherwise: str) -> Iterator[None]:
    """Convert errors of a download of published weights within the block.

    Args:
        name: of the model, as "timm:resnet18".
        otherwise: how to train without the weights, for the message.

    Raises:
        UserError: an error was raised in the block.
    """
    try:
        yield
    except Exception as error:  # a library for downloads may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{name}: its published weights are not on this machine and cannot be downloaded "
            f"({reason}). Without a network, copy the cache of a machine that has them "
            "(torchvision: $TORCH_HOME or ~/.cache/torch; timm: $HF_HOME or ~/.cache/huggingface), "
            f"or {otherwise}."
        ) from error
