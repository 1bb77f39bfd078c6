"""ResNets (He et al., CVPR 2016, arXiv 1512.03385) for CIFAR and for ImageNet.

State-dict keys are those of mdistiller's models, and of torchvision's for ImageNet, so that their
checkpoints load.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .layers import chain, conv, conv_bn
from .staged import StagedClassifier, initialise_convolutions


class Residual(nn.Module):
    """A residual block without its last ReLU: it returns the sum of residual and shortcut.

    Attributes:
        shortcut_name: name of the shortcut's projection in checkpoints.
    """

    def add_shortcut(self, in_channels: int, out_channels: int, stride: int, name: str) -> None:
        self.shortcut_name = name
        projects = stride != 1 or in_channels != out_channels
        projection = conv_bn(in_channels, out_channels, 1, stride) if projects else nn.Identity()
        self.add_module(name, projection)

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(x) + self.get_submodule(self.shortcut_name)(x)


class BasicBlock(Residual):
    """Two 3 x 3 convolutions."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: str):
        super().__init__()
        self.conv1 = conv(in_channels, out_channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv(out_channels, out_channels, 3)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.add_shortcut(in_channels, out_channels, stride, shortcut)

    def residual(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))


class Bottleneck(Residual):
    """A 3 x 3 convolution between two 1 x 1 convolutions, with a quarter of the channels."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: str):
        super().__init__()
        inner = out_channels // 4
        self.conv1 = conv(in_channels, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, stride)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(inner, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.add_shortcut(in_channels, out_channels, stride, shortcut)

    def residual(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


class ResNet(StagedClassifier):
    """A stem and groups of residual blocks; each group after the first halves the map."""

    def __init__(
        self,
        num_classes: int,
        *,
        channels: Sequence[int],
        blocks: Sequence[int],
        block: type[Residual] = BasicBlock,
        reduces_in_stem: bool = False,
        shortcut: str = "downsample",
        linear: str = "fc",
    ):
        """
        Args:
            channels: channels of each stage's map, the stem's first.
            blocks: number of blocks of each stage after the stem.
            reduces_in_stem: use ImageNet's stem, 7 x 7 of stride 2 and a max pooling, whose map has
                a quarter of the image's height and width; else 3 x 3 of stride 1.
            shortcut, linear: names of the projection and of the linear layer in checkpoints.
        """
        super().__init__()
        self.num_stages = len(channels)
        self.conv1 = conv(3, channels[0], 7, 2) if reduces_in_stem else conv(3, channels[0], 3)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.maxpool = nn.MaxPool2d(3, 2, 1) if reduces_in_stem else nn.Identity()
        for stage, number in enumerate(blocks, start=1):
            inputs = [channels[stage - 1]] + [channels[stage]] * (number - 1)
            strides = [1 if stage == 1 else 2] + [1] * (number - 1)
            layer = [
                block(width, channels[stage], stride, shortcut)
                for width, stride in zip(inputs, strides, strict=True)
            ]
            self.add_module(f"layer{stage}", nn.Sequential(*layer))
        self.linear_name = linear
        self.add_module(linear, nn.Linear(channels[-1], num_classes))
        initialise_convolutions(self)

    def body(self, stage: int, x: Tensor) -> Tensor:
        if stage == 0:
            return self.bn1(self.conv1(x))
        return chain(self.get_submodule(f"layer{stage}"), self.maxpool(x) if stage == 1 else x)

    def linear_layer(self) -> nn.Module:
        return self.get_submodule(self.linear_name)


def cifar_resnet(num_classes: int, depth: int, widths: Sequence[int] = (16, 16, 32, 64)) -> ResNet:
    """Build CIFAR's ResNet of 6 n + 2 layers; `widths` are those of the stem and three groups."""
    return ResNet(num_classes, channels=widths, blocks=((depth - 2) // 6,) * 3)


def cifar_imagenet_resnet(num_classes: int, depths: Sequence[int], bottleneck: bool) -> ResNet:
    """Build ImageNet's four groups after CIFAR's stem, with mdistiller's own state-dict keys."""
    groups = _groups(depths, bottleneck)
    return ResNet(num_classes, **groups, shortcut="shortcut", linear="linear")


def imagenet_resnet(num_classes: int, depths: Sequence[int], bottleneck: bool = False) -> ResNet:
    """Build ImageNet's ResNet, with torchvision's state-dict keys."""
    return ResNet(num_classes, **_groups(depths, bottleneck), reduces_in_stem=True)


def _groups(depths: Sequence[int], bottleneck: bool) -> dict[str, Any]:
    block, expansion = (Bottleneck, 4) if bottleneck else (BasicBlock, 1)
    channels = (64, *(expansion * width for width in (64, 128, 256, 512)))
    return {"channels": channels, "blocks": depths, "block": block}
