"""Classifiers as sequences of stages, whose maps distillation methods compare and exchange.

N is the number of images, C of classes, S of stages; maps are (N, channels, H, W).
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class Outputs:
    """Logits and features of a batch.

    Attributes:
        logits: (N, C).
        maps: map of each stage after its activation, the stem's first.
        preactivations: the same maps before the activation; empty if not requested.
        pooled: (N, D), input of the linear layer.
    """

    logits: Tensor
    maps: list[Tensor]
    preactivations: list[Tensor]
    pooled: Tensor


class StagedClassifier(nn.Module):
    """A classifier of S stages: body, activation, body, activation, ..., tail, ReLU, pool, linear.

    Subclasses define `body` and, if they differ, `activate`, `tail` and `preactivation`. The
    forward pass, the features and the stages of FCFD use these. Images may have any size for which
    the strides leave a map.

    Attributes:
        num_stages: S, including the stem.
        emits: whether `stage` returns the map after or before its activation.
    """

    num_stages = 4
    emits: Literal["after_activation", "before_activation"] = "after_activation"

    def body(self, stage: int, x: Tensor) -> Tensor:
        """Return a stage's map before its activation from the previous stage's activated map."""
        raise NotImplementedError

    def activate(self, stage: int, x: Tensor) -> Tensor:
        """Apply the activation between this stage's body and the next one's."""
        return F.relu(x)

    def preactivation(self, stage: int, x: Tensor) -> Tensor:
        """Return the feature before the activation from the body's output."""
        return x

    def tail(self, x: Tensor) -> Tensor:
        """Apply the layers between the last body and the head's ReLU."""
        return x

    def linear_layer(self) -> nn.Module:
        """Return the linear layer of the head."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, C) of images (N, 3, H, W)."""
        for stage in range(self.num_stages):
            x = self.body(stage, self.activate(stage - 1, x) if stage else x)
        return self.head(self.tail(x))

    def forward_features(self, x: Tensor, *, preactivations: bool = False) -> Outputs:
        """Return logits and features; those before the activation if `preactivations`."""
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
        """Return a stage's emitted map from the previous stage's: f^k of FCFD.

        `emits` defines on which side of the activations the network is cut.
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
        """Return logits from the last stage's emitted map: ReLU, global average pooling, linear."""
        return self.linear_layer()(self.pool(x))

    def pool(self, x: Tensor) -> Tensor:
        """Return the pooled features (N, D) of the tail's map."""
        return F.relu(x).mean(dim=(2, 3))


def initialise_convolutions(model: nn.Module) -> None:
    """Initialise convolutions from Kaiming's normal distribution (fan-out, arXiv 1502.01852)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
