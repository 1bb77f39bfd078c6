"""ImageNet weights of torchvision's ResNets and MobileNetV2 for detectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torchvision
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.utils.file_io import PathHandler, PathManager
from torch import nn

from eakd_det.utils.errors import UserError

# Normalisation of the images that torchvision's ImageNet weights were trained on, in Detectron2's
# units.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
PREFIX = "torchvision://"


class TorchvisionPathHandler(PathHandler):
    """Path handler that resolves torchvision://NAME to torchvision's first ImageNet weights."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _get_local_path(self, path: str, **kwargs: Any) -> str:
        name = path.removeprefix(PREFIX)
        names = torchvision.models.list_models(
            torchvision.models, include=["resnet*", "resnext*", "wide_resnet*", "mobilenet_v2"]
        )
        if name not in names:
            raise UserError(f"{path}: choose from {', '.join(names)}.")
        # Detection papers start from the weights of the first recipe.
        weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
        return PathManager.get_local_path(weights.url, **kwargs)

    def _open(self, path: str, mode: str = "r", **kwargs: Any):
        return PathManager.open(self._get_local_path(path), mode, **kwargs)


PathManager.register_handler(TorchvisionPathHandler())


def is_torchvision(state: dict[str, Any]) -> bool:
    """Return True if the names of the weights are those of a torchvision ResNet or MobileNetV2."""
    return any({first, last} <= state.keys() for first, last in _ENDS.values())


# Keys that identify each family: one of the first layer, and one that no detector has.
_ENDS = {
    "resnet": ("conv1.weight", "layer1.0.conv1.weight"),
    "mobilenet": ("features.0.0.weight", "features.18.0.weight"),
}


def convert_torchvision(state: dict[str, Any]) -> dict[str, Any]:
    """Rename torchvision's weights to the names in a detector's backbone; drop the classifier.

    In a ResNet, layer1..4 become res2..5, bnK becomes convK.norm, downsample becomes shortcut, and
    the first layers become the stem. A MobileNetV2 keeps its names, without the last 1 x 1
    convolution.
    """
    kept = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    if _ENDS["mobilenet"][1] in state:
        return {k: v for k, v in kept.items() if not k.startswith(("classifier.", "features.18."))}
    return {_resnet_key(k): v for k, v in kept.items() if not k.startswith("fc.")}


def _resnet_key(key: str) -> str:
    if not key.startswith("layer"):
        key = f"stem.{key}"
    for layer in (1, 2, 3, 4):
        key = key.replace(f"layer{layer}.", f"res{layer + 1}.")
    for conv in (1, 2, 3):
        key = key.replace(f"bn{conv}.", f"conv{conv}.norm.")
    return key.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")


def check_input(
    model: nn.Module, weights: str, mean: Sequence[float], std: Sequence[float]
) -> None:
    """Check that a detector normalises RGB images as weights of ImageNet expect it.

    Args:
        weights: file and kind of the weights, for the message.
        mean, std: of pixels, in Detectron2's units.

    Raises:
        UserError: it does not.
    """
    mean_here, std_here = (x.flatten().tolist() for x in (model.pixel_mean, model.pixel_std))
    if not (
        model.input_format == "RGB"
        and np.allclose(mean_here, mean, rtol=1e-3)
        and np.allclose(std_here, std, rtol=1e-3)
    ):
        raise UserError(
            f"{weights} weights, trained on RGB images: set INPUT.FORMAT RGB, MODEL.PIXEL_MEAN "
            f"{list(mean)} and MODEL.PIXEL_STD {list(std)}."
        )


def check_input_and_stride(model: nn.Module, filename: str) -> None:
    """Check that a detector has the input format and the strided layers of torchvision's models.

    Args:
        filename: file of the weights, for the message.

    Raises:
        UserError: it does not have them.
    """
    check_input(model, f"{filename} holds torchvision", PIXEL_MEAN, PIXEL_STD)
    bottlenecks = [m for m in model.modules() if isinstance(m, BottleneckBlock)]
    if any(block.conv1.stride != (1, 1) for block in bottlenecks):
        raise UserError(
            f"{filename} holds torchvision weights, whose 3 x 3 convolutions have the stride: "
            "set MODEL.RESNETS.STRIDE_IN_1X1 False."
        )
