"""Reduction of the image size by a classifier's first layers."""

import logging

from torch import nn

SMALL_IMAGE = 64  # pixels; ImageNet's stems are meant for larger images
LARGE_REDUCTION = 4  # of ImageNet's stems: a convolution and a max pooling of stride 2, or patches


def stem_reduction(model: nn.Module) -> int:
    """Return the factor by which a model's first layers reduce height and width.

    These are the first convolution, and a max pooling if no other layer reduces the map before it.
    """
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.MaxPool2d))]
    strides = [m.stride[0] if isinstance(m.stride, tuple) else m.stride for m in layers]
    if not layers or strides[0] == 1:
        return 1
    later = [(m, s) for m, s in zip(layers[1:], strides[1:], strict=True) if s > 1]
    has_pool = bool(later) and isinstance(later[0][0], nn.MaxPool2d)
    return strides[0] * (later[0][1] if has_pool else 1)


def warn_of_large_stem(model: nn.Module, name: str, size: int, *, key: str) -> None:
    """Warn if the stem of a model made for ImageNet reduces small images too much.

    Args:
        name: name of the model.
        size: height and width of the images.
        key: "MODEL" or "TEACHER".
    """
    reduction = stem_reduction(model)
    if size > SMALL_IMAGE or reduction < LARGE_REDUCTION:
        return
    left = -(-size // reduction)
    logging.getLogger(__name__).warning(
        f"{key}.NAME {name} has a stem for ImageNet: its first layers reduce images of {size} x "
        f"{size} pixels to maps of {left} x {left}. For small images choose a network whose first "
        "layers keep the size, such as ResNet18, ResNet50, resnet20 or wrn_16_2 of "
        "classification/models, or use larger images."
    )
