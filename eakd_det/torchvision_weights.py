"""ImageNet weights of torchvision's ResNets for Detectron2's."""

from typing import Any

import numpy as np
import torchvision
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.utils.file_io import PathHandler, PathManager
from torch import nn

from .errors import UserError

# What torchvision's ImageNet weights were trained on, in Detectron2's units.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
PREFIX = "torchvision://"


class TorchvisionPathHandler(PathHandler):
    """Resolves torchvision://NAME to torchvision's first ImageNet weights, downloaded once."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _get_local_path(self, path: str, **kwargs: Any) -> str:
        name = path.removeprefix(PREFIX)
        names = torchvision.models.list_models(
            torchvision.models, include=["resnet*", "resnext*", "wide_resnet*"]
        )
        if name not in names:
            raise UserError(f"{path}: choose from {', '.join(names)}.")
        # The first recipe's weights are the ones that detection papers start from.
        weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
        return PathManager.get_local_path(weights.url, **kwargs)

    def _open(self, path: str, mode: str = "r", **kwargs: Any):
        return PathManager.open(self._get_local_path(path), mode, **kwargs)


PathManager.register_handler(TorchvisionPathHandler())


def is_torchvision_resnet(state: dict[str, Any]) -> bool:
    """Whether the names of some weights are those of a torchvision ResNet."""
    return "conv1.weight" in state and "layer1.0.conv1.weight" in state


def convert_torchvision_resnet(state: dict[str, Any]) -> dict[str, Any]:
    """Rename the weights of a torchvision ResNet to Detectron2's names; its classifier is dropped.

    layer1..4 become res2..5, bnK convK.norm, downsample shortcut, and the first layers the stem.
    """
    renamed = {}
    for key, value in state.items():
        if key.startswith("fc.") or key.endswith("num_batches_tracked"):
            continue
        if not key.startswith("layer"):
            key = f"stem.{key}"
        for layer in (1, 2, 3, 4):
            key = key.replace(f"layer{layer}.", f"res{layer + 1}.")
        for conv in (1, 2, 3):
            key = key.replace(f"bn{conv}.", f"conv{conv}.norm.")
        key = key.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
        renamed[key] = value
    return renamed


def check_suits(model: nn.Module, filename: str) -> None:
    """Check that a detector sees images as torchvision's ResNets do, and strides where they do.

    Args:
        filename: the file of the weights, for the message.

    Raises:
        UserError: it does not.
    """
    mean, std = (x.flatten().tolist() for x in (model.pixel_mean, model.pixel_std))
    if not (
        model.input_format == "RGB"
        and np.allclose(mean, PIXEL_MEAN, rtol=1e-3)
        and np.allclose(std, PIXEL_STD, rtol=1e-3)
    ):
        raise UserError(
            f"{filename} holds torchvision weights, trained on RGB images: set INPUT.FORMAT "
            f"RGB, MODEL.PIXEL_MEAN {list(PIXEL_MEAN)} and MODEL.PIXEL_STD "
            f"{list(PIXEL_STD)}."
        )
    bottlenecks = [m for m in model.modules() if isinstance(m, BottleneckBlock)]
    if any(block.conv1.stride != (1, 1) for block in bottlenecks):
        raise UserError(
            f"{filename} holds torchvision weights, whose 3 x 3 convolutions have the stride: "
            "set MODEL.RESNETS.STRIDE_IN_1X1 False."
        )
