"""Reduction of an image by a classifier's first layers."""

import logging

from torch import nn

SMALL_IMAGE = 64  # pixels; from above on, stems of ImageNet's networks are in place
LARGE_REDUCTION = 4  # of ImageNet's stems: a convolution and a max pooling of stride 2, or patches


def stem_reduction(model: nn.Module) -> int:
    """Pixels of the image along a side for each of the map behind the first layers.

    These are the first convolution, and a max pooling where no other layer reduces before it.
    """
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.MaxPool2d))]
    strides = [m.stride[0] if isinstance(m.stride, tuple) else m.stride for m in layers]
    if not layers or strides[0] == 1:
        return 1
    later = [(m, s) for m, s in zip(layers[1:], strides[1:], strict=True) if s > 1]
    has_pool = bool(later) and isinstance(later[0][0], nn.MaxPool2d)
    return strides[0] * (later[0][1] if has_pool else 1)


def warn_of_large_stem(model: nn.Module, name: str, size: int, *, key: str) -> None:
    """Warn where first layers made for ImageNet leave little of small images.

    Args:
        name: of the model.
        size: height and width of the images.
        key: "MODEL" or "TEACHER".
    """
    reduction = stem_reduction(model)
    if size > SMALL_IMAGE or reduction < LARGE_REDUCTION:
        return
    left = -(-size // reduction)
    logging.getLogger(__name__).warning(
        f"{key}.NAME {name} begins as networks for ImageNet do: behind its first layers, images of "
        f"{size} x {size} pixels are maps of {left} x {left}. For small images take a network "
        "whose first layers keep their size, as ResNet18, ResNet50, resnet20 or wrn_16_2 of "
        "classification/models do, or give it larger images."
    )
