"""Wide ResNets for CIFAR (Zagoruyko and Komodakis, BMVC 2016, arXiv 1605.07146).

State-dict keys are those of the released CIFAR teachers.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from .staged import StagedClassifier, initialise_convolutions


class _Block(nn.Module):
    """A pre-activation residual block: batch norm and ReLU precede each convolution."""

    def __init__(self, width_in: int, width_out: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, 1, 1, bias=False)
        self.convShortcut = None
        if width_in != width_out:
            self.convShortcut = nn.Conv2d(width_in, width_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        residual = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        shortcut = x if self.convShortcut is None else self.convShortcut(activated)
        return residual + shortcut


class _Stage(nn.Module):
    def __init__(self, depth: int, width_in: int, width_out: int, stride: int):
        super().__init__()
        first = _Block(width_in, width_out, stride)
        rest = [_Block(width_out, width_out, 1) for _ in range(depth - 1)]
        self.layer = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class WideResNet(StagedClassifier):
    """A WRN of 6 n + 4 layers; its maps are the blocks' sums, which the next block normalises."""

    emits = "before_activation"

    def __init__(self, num_classes: int, depth: int, widen_factor: int):
        super().__init__()
        widths = [16, *(width * widen_factor for width in (16, 32, 64))]
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.block1 = _Stage(blocks, widths[0], widths[1], 1)
        self.block2 = _Stage(blocks, widths[1], widths[2], 2)
        self.block3 = _Stage(blocks, widths[2], widths[3], 2)
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3], num_classes)
        initialise_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def body(self, stage: int, x: Tensor) -> Tensor:
        return (self.conv1, self.block1, self.block2, self.block3)[stage](x)

    def activate(self, stage: int, x: Tensor) -> Tensor:
        """Return the map as it is: the next block begins with the activation."""
        return x

    def preactivation(self, stage: int, x: Tensor) -> Tensor:
        """Apply the next block's batch norm with its running statistics, except to the stem's map.

        In training, the norm updates its statistics once, in the next block; in the released code
        it updates them twice.
        """
        if stage == 0:
            return x
        norm = (self.block2.layer[0].bn1, self.block3.layer[0].bn1, self.bn1)[stage - 1]
        statistics = norm.running_mean, norm.running_var
        return F.batch_norm(x, *statistics, norm.weight, norm.bias, eps=norm.eps)

    def tail(self, x: Tensor) -> Tensor:
        return self.bn1(x)

    def linear_layer(self) -> nn.Module:
        return self.fc
