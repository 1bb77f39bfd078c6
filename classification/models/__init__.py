"""Classifiers by name.

CIFAR models have the names of the released code (ResNet50 is one of them); names of ImageNet models
begin with imagenet_. Any other model is timm:NAME or torchvision:NAME.
"""

import difflib
from collections.abc import Callable
from functools import partial

from torch import nn

from eakd_det.utils.errors import UserError

from .external import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    build_external,
    check_external,
    features_of,
    permute_classes,
    pooled_features,
    published_normalisation,
    scale_logits,
)
from .external import PREFIXES as EXTERNAL
from .mobilenet import MobileNetV1, MobileNetV2
from .resnet import cifar_imagenet_resnet, cifar_resnet, imagenet_resnet
from .shufflenet import ShuffleNetV1, ShuffleNetV2
from .staged import Outputs, StagedClassifier
from .stem import warn_of_large_stem
from .vgg import VGG
from .wrn import WideResNet

__all__ = [
    "EXTERNAL",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "MODELS",
    "Outputs",
    "StagedClassifier",
    "build_classifier",
    "check_classifier",
    "features_of",
    "permute_classes",
    "pooled_features",
    "published_normalisation",
    "scale_logits",
    "warn_of_large_stem",
]

_WIDE = (32, 64, 128, 256)

# Name -> function of the number of classes.
MODELS: dict[str, Callable[[int], nn.Module]] = {
    **{f"resnet{d}": partial(cifar_resnet, depth=d) for d in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{d}x4": partial(cifar_resnet, depth=d, widths=_WIDE) for d in (8, 32)},
    "ResNet18": partial(cifar_imagenet_resnet, depths=(2, 2, 2, 2), bottleneck=False),
    "ResNet50": partial(cifar_imagenet_resnet, depths=(3, 4, 6, 3), bottleneck=True),
    **{
        f"wrn_{depth}_{factor}": partial(WideResNet, depth=depth, widen_factor=factor)
        for depth, factor in ((16, 1), (16, 2), (40, 1), (40, 2), (28, 4))
    },
    "vgg8": partial(VGG, depths=(1, 1, 1, 1, 1)),
    "vgg11": partial(VGG, depths=(1, 1, 2, 2, 2)),
    "vgg13": partial(VGG, depths=(2, 2, 2, 2, 2)),
    "vgg16": partial(VGG, depths=(2, 2, 3, 3, 3)),
    "vgg19": partial(VGG, depths=(2, 2, 4, 4, 4)),
    "MobileNetV2": MobileNetV2,
    "ShuffleNetV1": ShuffleNetV1,
    "ShuffleNetV2": ShuffleNetV2,
    "ShuffleV1": ShuffleNetV1,  # the released code's names
    "ShuffleV2": ShuffleNetV2,
    "imagenet_resnet18": partial(imagenet_resnet, depths=(2, 2, 2, 2)),
    "imagenet_resnet34": partial(imagenet_resnet, depths=(3, 4, 6, 3)),
    "imagenet_resnet50": partial(imagenet_resnet, depths=(3, 4, 6, 3), bottleneck=True),
    "imagenet_mobilenetv1": MobileNetV1,
}


def build_classifier(
    name: str, num_classes: int, *, pretrained: bool = False, new_head: bool = False
) -> nn.Module:
    """Build a classifier by name.

    Args:
        name: a key of MODELS, "timm:NAME" or "torchvision:NAME".
        num_classes: number of classes of the data.
        pretrained: load the published weights of timm or torchvision.
        new_head: with published weights of another number of classes, start with a random head.

    Raises:
        UserError: there is no such model, or it has no published weights for `num_classes`.
    """
    check_classifier(name)
    if name.startswith(EXTERNAL):
        return build_external(name, num_classes, pretrained=pretrained, new_head=new_head)
    if pretrained:
        raise UserError(f"{name} has no pretrained weights: give the path of a checkpoint.")
    return MODELS[name](num_classes)


def check_classifier(name: str) -> None:
    """Check that there is a classifier of a name, without building it.

    Raises:
        UserError: there is none, or its package is not installed.
    """
    if name.startswith(EXTERNAL):
        check_external(name)
    elif name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, 3)
        hint = f"did you mean {', '.join(near)}?" if near else f"choose from {', '.join(MODELS)}."
        raise UserError(
            f"There is no model {name!r}; {hint} timm:NAME and torchvision:NAME also work."
        )
