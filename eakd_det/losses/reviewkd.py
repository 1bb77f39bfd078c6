"""Knowledge review, ReviewKD (Chen et al., CVPR 2021, arXiv 2104.09044): fusion modules and HCL.

Feature maps are lists from the finest level to the coarsest; N counts images.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batch_norm import BatchNorm
from .levels import pair_levels, reduce_levels

POOLED_SIZES = (4, 2, 1)


def hcl_loss(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    *,
    weight: Tensor | None = None,
) -> Tensor:
    """Hierarchical context loss (arXiv 2104.09044, section 3.4), summed over the levels.

    On a level of height h it is (MSE + sum of c_l MSE of the maps average-pooled to l x l) divided
    by 1 + the sum of the c_l, for those l of 4, 2, 1 that are below h; c_l is 1/2 for the first l
    used and is halved for each further one.

    Args:
        student_features, teacher_features: maps (N, channels, H, W), of equal shapes on each level.
            The teacher's side gets no gradient.
        weight: (N,) factor of each image, or None.

    Returns:
        The mean over the images, a scalar; at least float32. No image gives a zero joined to the
        graph.

    Raises:
        ValueError: the maps differ in number or shape, or `weight` is not (N,).
    """
    pairs = pair_levels(student_features, teacher_features)
    return reduce_levels([_hcl_of_level(*pair) for pair in pairs], weight)


def _hcl_of_level(student: Tensor, teacher: Tensor) -> Tensor:
    """HCL of each image on one level, (N,)."""
    # Pooling is linear: the pooled difference is the difference of the pooled maps.
    difference = student - teacher
    loss = difference.square().mean(dim=(1, 2, 3))
    total, coefficient = 1.0, 1.0
    for size in POOLED_SIZES:
        if size < difference.shape[2]:
            coefficient /= 2
            pooled = F.adaptive_avg_pool2d(difference, size)
            loss = loss + coefficient * pooled.square().mean(dim=(1, 2, 3))
            total += coefficient
    return loss / total


class ReviewFusion(nn.Module):
    """Attention-based fusion (ABF; arXiv 2104.09044, section 3.3) of a student's levels.

    From the coarsest level to the finest, each is fused with the result of the coarser ones and
    mapped to the teacher's channels. State-dict keys are those of the released code, where `abfs.0`
    is the coarsest level.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        *,
        mid_channels: int | None = None,
    ):
        """
        Args:
            in_channels, out_channels: channels of the student's and the teacher's levels.
            mid_channels: channels of the fused maps; None is those of the coarsest student level,
                at most 512.

        Raises:
            ValueError: student and teacher differ in the number of levels.
        """
        super().__init__()
        if len(in_channels) != len(out_channels):
            raise ValueError(
                f"{len(in_channels)} levels of the student, {len(out_channels)} of the teacher"
            )
        mid_channels = mid_channels or min(512, in_channels[-1])
        widths = list(zip(in_channels, out_channels, strict=True))[::-1]
        self.abfs = nn.ModuleList(
            _Fusion(width_in, mid_channels, width_out, has_coarser=i > 0)
            for i, (width_in, width_out) in enumerate(widths)
        )

    def forward(
        self, features: Sequence[Tensor], out_shapes: Sequence[tuple[int, ...]] | None = None
    ) -> list[Tensor]:
        """
        Args:
            features: the student's maps, (N, channels, H, W).
            out_shapes: (H, W) of each output; None keeps those of `features`.

        Returns:
            Maps (N, out_channels, H, W), finest first.
        """
        out_shapes = out_shapes or [x.shape[-2:] for x in features]
        fused, coarser = [], None
        levels = zip(reversed(features), reversed(out_shapes), strict=True)
        for fusion, (x, out_shape) in zip(self.abfs, levels, strict=True):
            output, coarser = fusion(x, coarser, out_shape)
            fused.append(output)
        return fused[::-1]


class _Fusion(nn.Module):
    """Fusion of one level of ReviewFusion."""

    def __init__(self, in_channels, mid_channels, out_channels, has_coarser):
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(in_channels, mid_channels, 1, bias=False), BatchNorm(mid_channels)
        )
        self.conv2 = nn.Sequential(
            nn.Conv2d(mid_channels, out_channels, 3, padding=1, bias=False),
            BatchNorm(out_channels),
        )
        self.att_conv = None
        if has_coarser:
            self.att_conv = nn.Sequential(nn.Conv2d(2 * mid_channels, 2, 1), nn.Sigmoid())
        for conv in (self.conv1[0], self.conv2[0]):
            nn.init.kaiming_uniform_(conv.weight, a=1)

    def forward(self, x, coarser, out_shape):
        """Return the output, and the fused map, which is `coarser` of the next finer level."""
        x = self.conv1(x)
        if self.att_conv is not None:
            coarser = F.interpolate(coarser, x.shape[-2:], mode="nearest")
            attention = self.att_conv(torch.cat([x, coarser], dim=1))
            x = x * attention[:, 0:1] + coarser * attention[:, 1:2]
        if x.shape[-2:] != out_shape:
            x = F.interpolate(x, out_shape, mode="nearest")
        return self.conv2(x), x
