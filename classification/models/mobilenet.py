"""MobileNetV2 for CIFAR and MobileNetV1 for ImageNet (arXiv 1801.04381, 1704.04861).

State-dict keys are those of the released models of CIFAR and ImageNet distillation.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from .staged import StagedClassifier, initialise_convolutions

# Expansion, channels at full width, blocks and stride of each group of MobileNetV2 for CIFAR.
GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STAGES = ((), (0, 1), (2,), (3, 4), (5, 6))  # groups of each stage; the stem has none
LAST_WIDTH = 1280

# Channels and stride of each unit of MobileNetV1, and the units of each stage.
UNITS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)
UNIT_STAGES = (range(0, 1), range(1, 4), range(4, 6), range(6, 12), range(12, 14))


class _InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and projection, without an activation at its end."""

    def __init__(self, width_in: int, width_out: int, stride: int, expansion: int):
        super().__init__()
        self.is_residual = stride == 1 and width_in == width_out
        middle = width_in * expansion
        self.conv = nn.Sequential(
            nn.Conv2d(width_in, middle, 1, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, width_out, 1, bias=False),
            nn.BatchNorm2d(width_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.is_residual else self.conv(x)


class MobileNetV2(StagedClassifier):
    """MobileNetV2 for images of 32 x 32 pixels, half as wide as ImageNet's."""

    num_stages = 5
    emits = "before_activation"

    def __init__(self, num_classes: int, width_factor: float = 0.5):
        super().__init__()
        width_in = int(32 * width_factor)
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, width_in, 3, 2, 1, bias=False), nn.BatchNorm2d(width_in)
        )
        self.blocks = nn.ModuleList()
        for expansion, width, depth, stride in GROUPS:
            blocks = []
            for i in range(depth):
                width_out = int(width * width_factor)
                block = _InvertedResidual(width_in, width_out, stride if i == 0 else 1, expansion)
                blocks.append(block)
                width_in = width_out
            self.blocks.append(nn.Sequential(*blocks))
        self.conv2 = nn.Sequential(
            nn.Conv2d(width_in, LAST_WIDTH, 1, bias=False), nn.BatchNorm2d(LAST_WIDTH)
        )
        self.classifier = nn.Sequential(nn.Linear(LAST_WIDTH, num_classes))
        initialise_convolutions(self)
        nn.init.normal_(self.classifier[0].weight, 0, 0.01)
        nn.init.zeros_(self.classifier[0].bias)

    def body(self, stage: int, x: Tensor) -> Tensor:
        if stage == 0:
            return self.conv1(x)
        for i in STAGES[stage]:
            x = self.blocks[i](x)
        return x

    def activate(self, stage: int, x: Tensor) -> Tensor:
        """Apply a ReLU after the stem; the other stages end without an activation."""
        return x if stage else F.relu(x)

    def tail(self, x: Tensor) -> Tensor:
        return self.conv2(x)

    def linear_layer(self) -> nn.Module:
        return self.classifier


class MobileNetV1(StagedClassifier):
    """MobileNetV1 for ImageNet, as units that end before their activation."""

    num_stages = 5

    def __init__(self, num_classes: int):
        super().__init__()
        width_in = 32
        stem = nn.Sequential(nn.Conv2d(3, width_in, 3, 2, 1, bias=False), nn.BatchNorm2d(width_in))
        units = [stem]
        for width, stride in UNITS:
            units.append(
                nn.Sequential(
                    nn.Conv2d(width_in, width_in, 3, stride, 1, groups=width_in, bias=False),
                    nn.BatchNorm2d(width_in),
                    nn.ReLU(inplace=True),
                    nn.Conv2d(width_in, width, 1, bias=False),
                    nn.BatchNorm2d(width),
                )
            )
            width_in = width
        self.model = nn.Sequential(*units)
        self.fc = nn.Linear(width_in, num_classes)

    def body(self, stage: int, x: Tensor) -> Tensor:
        first, *rest = UNIT_STAGES[stage]
        x = self.model[first](x)
        for i in rest:
            x = self.model[i](F.relu(x))
        return x

    def linear_layer(self) -> nn.Module:
        return self.fc
