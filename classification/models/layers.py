"""Layers and blocks shared by the model families."""

from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.nn import functional as F


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, groups: int = 1):
    """Build a convolution without bias that keeps the size of the map, up to its stride."""
    return nn.Conv2d(
        in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
    )


def conv_bn(*args: int, **kwargs: int) -> nn.Sequential:
    """Build `conv` followed by batch normalization."""
    convolution = conv(*args, **kwargs)
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels))


def chain(
    blocks: Iterable[nn.Module], x: Tensor, activate: Callable[[Tensor], Tensor] = F.relu
) -> Tensor:
    """Apply blocks in turn, with the activation between them but not after the last."""
    for i, block in enumerate(blocks):
        x = block(activate(x) if i else x)
    return x


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Shuffle channels: the first of each group, then the second of each, and so on."""
    if groups == 1:
        return x
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
