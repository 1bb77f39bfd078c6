"""Masked generative distillation, MGD (Yang et al., ECCV 2022, arXiv 2205.01529).

Feature maps are lists from the finest level to the coarsest; N counts images.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .levels import pair_levels, reduce_levels
from .map_adapter import MapAdapter


def mgd_loss(
    generated_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    *,
    alpha: float = 5e-7,
    weight: Tensor | None = None,
) -> Tensor:
    """alpha times the sum of squared errors over channels and positions (arXiv 2205.01529, eq. 6).

    Args:
        generated_features: maps that `MaskedGeneration` returns, (N, channels, H, W).
        teacher_features: maps of the same shapes. They get no gradient.
        alpha: factor of the loss, small because it is a sum.
        weight: (N,) factor of each image, or None.

    Returns:
        The mean over the images of the sum over the levels, a scalar; at least float32. No image
        gives a zero joined to the graph.

    Raises:
        ValueError: the maps differ in number or shape, or `weight` is not (N,).
    """
    pairs = pair_levels(generated_features, teacher_features)
    levels = [(generated - t).square().sum(dim=(1, 2, 3)) for generated, t in pairs]
    return alpha * reduce_levels(levels, weight)


def draw_masks(features: Sequence[Tensor], *, mask_ratio: float = 0.45) -> list[Tensor]:
    """Draw the positions of each map that are kept, from the global random state of its device.

    Args:
        features: maps (N, channels, H, W).
        mask_ratio: expected share of the positions that are removed, lambda.

    Returns:
        (N, 1, H, W) bool of each map, True where it is kept.
    """
    return [
        kept_positions(torch.rand(len(x), 1, *x.shape[-2:], device=x.device), mask_ratio)
        for x in features
    ]


def kept_positions(uniform: Tensor, mask_ratio: float) -> Tensor:
    """Return True where a number that is uniform in [0, 1) is not above 1 - mask_ratio."""
    return uniform <= 1 - mask_ratio


class MaskedGeneration(nn.Module):
    """Generates the teacher's maps from the student's masked ones (arXiv 2205.01529, eq. 5).

    On each level the student's map, brought to the teacher's channels and size, is set to zero
    where it is masked, and passes through a 3 x 3 convolution, ReLU and a second 3 x 3 convolution.
    """

    def __init__(self, student_channels: Sequence[int], teacher_channels: Sequence[int]):
        """
        Args:
            student_channels, teacher_channels: channels of the levels.

        Raises:
            ValueError: student and teacher differ in the number of levels.
        """
        super().__init__()
        self.adapter = MapAdapter(student_channels, teacher_channels)
        self.generation = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, width, 3, padding=1),
            )
            for width in teacher_channels
        )

    def forward(
        self,
        features: Sequence[Tensor],
        shapes: Sequence[tuple[int, ...]],
        masks: Sequence[Tensor],
    ) -> list[Tensor]:
        """
        Args:
            features: the student's maps, (N, channels, H, W).
            shapes: (H, W) of the teacher's maps.
            masks: 1 or True where the map is kept, broadcast to (N, teacher_channels, H, W).

        Returns:
            Maps (N, teacher_channels, H, W).
        """
        levels = zip(self.generation, self.adapter(features, shapes), masks, strict=True)
        return [generate(x * mask) for generate, x, mask in levels]
