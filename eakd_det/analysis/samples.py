"""Outputs of a network for labelled samples, the input of every analysis."""

from dataclasses import dataclass

from torch import Tensor

from eakd_det.losses import entropy, entropy_weight


@dataclass(frozen=True)
class Samples:
    """Outputs of one network, on the CPU; networks are compared on the same samples.

    Attributes:
        labels: (N,) int64, the true classes.
        logits: (N, C) float32; for a detector C is K + 1, background last.
        features: (N, D) float32, inputs of the last linear layer.
    """

    labels: Tensor
    logits: Tensor
    features: Tensor

    @property
    def is_correct(self) -> Tensor:
        """(N,) bool, True where the most probable class is the true one."""
        return self.logits.argmax(dim=1) == self.labels

    def entropy(self, temperature: float) -> Tensor:
        """Entropy of each sample, (N,), in nats."""
        return entropy(self.logits, temperature=temperature)

    def weight(self, teacher: "Samples", temperature: float) -> Tensor:
        """w_EA of each of a student's samples, (N,), given its teacher's outputs for them."""
        return entropy_weight(self.logits, teacher.logits, temperature=temperature)
