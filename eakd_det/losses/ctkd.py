"""Curriculum temperature, CTKD (Li et al., AAAI 2023, arXiv 2211.16231).

The temperature of KD is trained to increase the student's loss, more strongly as training proceeds:
`kd_loss(..., temperature=temperature(curriculum_strength(epoch)))`.
"""

import math

import torch
from torch import Tensor, nn

START, RANGE = 1.0, 20.0  # the released code's; it calls the range t_end


class CurriculumTemperature(nn.Module):
    """One temperature for all samples, T = 1 + 20 sigmoid(u) with u trained; initially 15.6."""

    def __init__(self):
        super().__init__()
        self.u = nn.Parameter(torch.ones(()))

    def forward(self, strength: float) -> Tensor:
        """Return the temperature, a scalar.

        Args:
            strength: lambda, from 0 to -1; multiplies the gradient in the backward pass. Below 0,
                the optimizer step that lowers the loss in the student raises it in the temperature.
        """
        temperature = START + RANGE * torch.sigmoid(self.u)
        constant = temperature.detach()
        # The difference is exactly 0 and has the gradient of the temperature.
        return constant + strength * (temperature - constant)


def curriculum_strength(epoch: int, *, epochs: int = 10) -> float:
    """Return lambda of an epoch, which falls from 0 to -1 along half a cosine.

    Args:
        epoch: counted from 1.
        epochs: epoch from which lambda is -1.

    Raises:
        ValueError: `epochs` is not positive.
    """
    if epochs < 1:
        raise ValueError(f"the curriculum needs at least 1 epoch, got {epochs}")
    return (math.cos(math.pi * min(epoch / epochs, 1.0)) - 1) / 2
