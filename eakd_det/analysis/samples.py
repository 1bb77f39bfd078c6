"""What a network says of labelled samples: the ground of every analysis."""

from dataclasses import dataclass

from torch import Tensor

from eakd_det.losses import entropy, entropy_weight


@dataclass(frozen=True)
class Samples:
    """The answers of one network, on the CPU; all networks that are compared saw the same samples.

    Attributes:
        labels: (N,) int64, the true classes.
        logits: (N, C) float32; of a detector C is K + 1, background last.
        features: (N, D) float32, what enters the last linear layer.
    """

    labels: Tensor
    logits: Tensor
    features: Tensor

    @property
    def is_correct(self) -> Tensor:
        """(N,) bool: the likeliest class is the true one."""
        return self.logits.argmax(dim=1) == self.labels

    def entropy(self, temperature: float) -> Tensor:
        """(N,) in nats."""
        return entropy(self.logits, temperature=temperature)

    def weight(self, teacher: "Samples", temperature: float) -> Tensor:
        """(N,) w_EA of a student's samples beside those of its teacher."""
        return entropy_weight(self.logits, teacher.logits, temperature=temperature)
