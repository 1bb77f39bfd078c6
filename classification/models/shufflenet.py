"""ShuffleNet V1 (Zhang et al., CVPR 2018, arXiv 1707.01083) and V2 (Ma et al., ECCV 2018, arXiv
1807.11164) for CIFAR: a 1 x 1 stem of stride 1 in place of the 3 x 3 one and the max pooling.

State-dict keys are those of mdistiller's models.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import chain, conv, shuffle
from .staged import StagedClassifier


class GroupedBlock(nn.Module):
    """Block of V1 without its last ReLU; with stride 2 it appends its pooled input."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, groups: int, first_groups: int
    ):
        super().__init__()
        self.stride, self.first_groups = stride, first_groups
        added = out_channels - in_channels if stride == 2 else out_channels
        inner = added // 4
        self.conv1 = conv(in_channels, inner, 1, groups=first_groups)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, stride, groups=inner)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(inner, added, 1, groups=groups)
        self.bn3 = nn.BatchNorm2d(added)

    def forward(self, x: Tensor) -> Tensor:
        y = shuffle(F.relu(self.bn1(self.conv1(x))), self.first_groups)
        # Unlike in the paper there is a ReLU after the depthwise convolution.
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        if self.stride == 1:
            return y + x
        return torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], dim=1)


class SplitBlock(nn.Module):
    """Block of V2 without its last ReLU and shuffle: half of the channels pass unchanged.

    These are the output of a ReLU already, so that a second ReLU does not change them.
    """

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.conv1 = conv(half, half, 1)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = conv(half, half, 3, groups=half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv(half, half, 1)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        kept, y = x.chunk(2, dim=1)
        y = F.relu(self.bn1(self.conv1(y)))
        y = self.bn2(self.conv2(y))
        return torch.cat([kept, self.bn3(self.conv3(y))], dim=1)


class DownBlock(nn.Module):
    """Block of V2 of stride 2 without its last ReLU and shuffle: two branches, concatenated."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        half = out_channels // 2
        self.conv1 = conv(in_channels, in_channels, 3, 2, groups=in_channels)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = conv(in_channels, half, 1)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv(in_channels, half, 1)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = conv(half, half, 3, 2, groups=half)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = conv(half, half, 1)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        left = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        right = F.relu(self.bn3(self.conv3(x)))
        right = self.bn5(self.conv5(self.bn4(self.conv4(right))))
        return torch.cat([left, right], dim=1)


class ShuffleNet(StagedClassifier):
    """Base of V1 and V2: a stem, and three stages that halve the map."""

    def add_stem(self, channels: int) -> None:
        self.conv1 = conv(3, channels, 1)
        self.bn1 = nn.BatchNorm2d(channels)

    def linear_layer(self) -> nn.Module:
        return self.linear


class ShuffleNetV1(ShuffleNet):
    """ShuffleNet V1: grouped 1 x 1 convolutions with channel shuffles."""

    emits = "before_activation"

    def __init__(
        self,
        num_classes: int,
        *,
        channels: tuple[int, ...] = (24, 240, 480, 960),
        blocks: tuple[int, ...] = (4, 8, 4),
        groups: int = 3,
    ):
        """
        Args:
            channels: channels of each stage's map, the stem's first.
            blocks: number of blocks of each stage after the stem.
            groups: groups of the 1 x 1 convolutions; the first one, with few channels, has 1.
        """
        super().__init__()
        self.add_stem(channels[0])
        for stage, number in enumerate(blocks, start=1):
            first_groups = 1 if stage == 1 else groups
            width = channels[stage]
            layer = [GroupedBlock(channels[stage - 1], width, 2, groups, first_groups)]
            layer += [GroupedBlock(width, width, 1, groups, groups) for _ in range(number - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(*layer))
        self.linear = nn.Linear(channels[-1], num_classes)

    def body(self, stage: int, x: Tensor) -> Tensor:
        if stage == 0:
            return self.bn1(self.conv1(x))
        return chain(self.get_submodule(f"layer{stage}"), x)


class ShuffleNetV2(ShuffleNet):
    """ShuffleNet V2: half of each block's channels pass unchanged, then channels are shuffled."""

    def __init__(
        self,
        num_classes: int,
        *,
        channels: tuple[int, ...] = (24, 116, 232, 464),
        blocks: tuple[int, ...] = (4, 8, 4),
        tail_channels: int = 1024,
    ):
        """
        Args:
            channels: channels of each stage's map, the stem's first.
            blocks: number of blocks of each stage after the stem.
            tail_channels: channels of the last 1 x 1 convolution.
        """
        super().__init__()
        self.add_stem(channels[0])
        for stage, number in enumerate(blocks, start=1):
            layer = [DownBlock(channels[stage - 1], channels[stage])]
            layer += [SplitBlock(channels[stage]) for _ in range(number - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(*layer))
        self.conv2 = conv(channels[-1], tail_channels, 1)
        self.bn2 = nn.BatchNorm2d(tail_channels)
        self.linear = nn.Linear(tail_channels, num_classes)

    def body(self, stage: int, x: Tensor) -> Tensor:
        if stage == 0:
            return self.bn1(self.conv1(x))
        return chain(self.get_submodule(f"layer{stage}"), x, partial(self.activate, stage))

    def activate(self, stage: int, x: Tensor) -> Tensor:
        return shuffle(F.relu(x), 2) if stage else F.relu(x)

    def tail(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.activate(self.num_stages - 1, x)))
