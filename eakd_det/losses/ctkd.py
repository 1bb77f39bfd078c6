"""Curriculum temperature, CTKD (Li et al., AAAI 2023, arXiv 2211.16231).

The temperature of KD is trained against the student, the more the further the training is:
`kd_loss(..., temperature=temperature(curriculum_strength(epoch)))`.
"""

import math

import torch
from torch import Tensor, nn


class CurriculumTemperature(nn.Module):
    """One temperature for all samples, T = start + range * sigmoid(u), with u trained.

    It begins at 15.6. The released code calls the range t_end; its temperature lies in (1, 21).
    """

    def __init__(self, start: float = 1.0, range: float = 20.0):
        """
        Args:
            start: the lowest temperature.
            range: the highest one is so much higher.
        """
        super().__init__()
        self.start, self.range = start, range
        self.u = nn.Parameter(torch.ones(()))

    def forward(self, strength: float) -> Tensor:
        """The temperature, a scalar.

        Args:
            strength: lambda, from 0 to -1: what its gradient is multiplied by on the way back, so
                that an optimizer that lessens the loss of the student lets the temperature raise it
                (arXiv 2211.16231, section 3.2).
        """
        u = strength * self.u + (1 - strength) * self.u.detach()
        return self.start + self.range * torch.sigmoid(u)


def curriculum_strength(epoch: int, *, epochs: int = 10) -> float:
    """lambda of an epoch: from 0 down to -1 along a cosine (arXiv 2211.16231, equation 6).

    Args:
        epoch: counted from 1.
        epochs: it is -1 from this one on.
    """
    return -(1 - math.cos(math.pi * min(epoch, epochs) / epochs)) / 2
