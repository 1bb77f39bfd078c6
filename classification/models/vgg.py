"""VGG with batch norm for CIFAR (Simonyan and Zisserman, ICLR 2015, arXiv 1409.1556).

State-dict keys are those of the released CIFAR teachers.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from .staged import StagedClassifier, initialise_convolutions

WIDTHS = (64, 128, 256, 512, 512)
MIN_SIZE = 8  # of a map that is halved before the last stage, as for images of 64 pixels


class VGG(StagedClassifier):
    """Five stages of 3 x 3 convolutions with max pooling between them, and one linear layer."""

    num_stages = 5
    emits = "before_activation"

    def __init__(self, num_classes: int, depths: Sequence[int]):
        """
        Args:
            depths: number of convolutions of each stage.
        """
        super().__init__()
        width_in = 3
        for stage, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True)):
            layers = []
            for _ in range(depth):
                convolution = nn.Conv2d(width_in, width, 3, 1, 1)
                layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                width_in = width
            self.add_module(f"block{stage}", nn.Sequential(*layers[:-1]))
        self.classifier = nn.Linear(width_in, num_classes)
        initialise_convolutions(self)
        nn.init.normal_(self.classifier.weight, 0, 0.01)
        nn.init.zeros_(self.classifier.bias)

    def body(self, stage: int, x: Tensor) -> Tensor:
        is_last = stage == self.num_stages - 1
        if stage and (not is_last or x.shape[2] >= MIN_SIZE):
            x = F.max_pool2d(x, 2)
        return self.get_submodule(f"block{stage}")(x)

    def linear_layer(self) -> nn.Module:
        return self.classifier
