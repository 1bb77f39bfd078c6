"""Pieces that the model families share."""

from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.nn import functional as F


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, groups: int = 1):
    """A convolution that keeps the size of the map, up to its stride, and has no bias."""
    return nn.Conv2d(
        in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
    )


def conv_bn(*args: int, **kwargs: int) -> nn.Sequential:
    """`conv` and its batch normalization."""
    convolution = conv(*args, **kwargs)
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels))


def chain(
    blocks: Iterable[nn.Module], x: Tensor, activate: Callable[[Tensor], Tensor] = F.relu
) -> Tensor:
    """Blocks that end before their activation, with it between them but not after the last."""
    for i, block in enumerate(blocks):
        x = block(activate(x) if i else x)
    return x


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Deal the channels out: the first of each group, then the second of each, and so on."""
    if groups == 1:
        return x
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
