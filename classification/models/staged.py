"""Classifiers as a sequence of stages, whose maps distillation methods compare and mix.

N counts images, C classes, S stages; maps are (N, channels, H, W).
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class Outputs:
    """What a classifier says of a batch.

    Attributes:
        logits: (N, C).
        maps: the map of each stage after its activation, the stem's first.
        preactivations: the same maps before it.
        pooled: (N, D), what the linear classifier reads.
    """

    logits: Tensor
    maps: list[Tensor]
    preactivations: list[Tensor]
    pooled: Tensor


class StagedClassifier(nn.Module):
    """A classifier of S stages: body, activation, body, activation, ..., tail, ReLU, pool, linear.

    A family says what its bodies are (`body`), and where it differs, its `activate`, `tail` and
    `preactivation`. From these come the plain forward, the features, and the stages of FCFD. It
    takes images of any size that its strides leave a map of.

    Attributes:
        num_stages: S, the stem included.
        emits: what `stage` hands on: the map after its activation, or before it.
    """

    num_stages = 4
    emits: Literal["after_activation", "before_activation"] = "after_activation"

    def body(self, stage: int, x: Tensor) -> Tensor:
        """Map of a stage before its activation, from that of the stage before after its own."""
        raise NotImplementedError

    def activate(self, stage: int, x: Tensor) -> Tensor:
        """Activation between this stage's body and the next one's."""
        return F.relu(x)

    def preactivation(self, stage: int, x: Tensor) -> Tensor:
        """What features before the activation are, from the body's output."""
        return x

    def tail(self, x: Tensor) -> Tensor:
        """What follows the last body, before the head's ReLU."""
        return x

    def linear_layer(self) -> nn.Module:
        """The linear layer."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, C) of images (N, 3, H, W)."""
        for stage in range(self.num_stages):
            x = self.body(stage, self.activate(stage - 1, x) if stage else x)
        return self.head(self.tail(x))

    def forward_features(self, x: Tensor, *, preactivations: bool = False) -> Outputs:
        """As forward, with the features; those before the activation only where asked for."""
        maps, before = [], []
        for stage in range(self.num_stages):
            raw = self.body(stage, x)
            if preactivations:
                before.append(self.preactivation(stage, raw))
            x = self.activate(stage, raw)
            maps.append(x)
        pooled = self.pool(self.tail(raw))
        return Outputs(self.linear_layer()(pooled), maps, before, pooled)

    def stage(self, stage: int, x: Tensor) -> Tensor:
        """Stage f^k of FCFD: from one emitted map to the next.

        `emits` says on which side of the activations the network is cut.
        """
        if self.emits == "before_activation" and stage:
            x = self.activate(stage - 1, x)
        x = self.body(stage, x)
        is_last = stage == self.num_stages - 1
        x = self.tail(x) if is_last else x
        if self.emits == "before_activation":
            return x
        return F.relu(x) if is_last else self.activate(stage, x)

    def head(self, x: Tensor) -> Tensor:
        """Logits from what the last `stage` emits: ReLU, global average pooling, linear layer."""
        return self.linear_layer()(self.pool(x))

    def pool(self, x: Tensor) -> Tensor:
        """(N, D) from the tail's map."""
        return F.relu(x).mean(dim=(2, 3))


def initialise_convolutions(model: nn.Module) -> None:
    """Kaiming's normal distribution by fan-out (arXiv 1502.01852), biases 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
