"""Adapters between feature maps of other channels and sizes."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class MapAdapter(nn.Module):
    """Brings a student's maps to the channels and sizes of the teacher's.

    A level with other channels has a 1 x 1 convolution with bias, one with equal channels has no
    parameters. Maps of another size are resized bilinearly.
    """

    def __init__(self, student_channels: Sequence[int], teacher_channels: Sequence[int]):
        """
        Args:
            student_channels, teacher_channels: channels of the levels.

        Raises:
            ValueError: student and teacher differ in the number of levels.
        """
        super().__init__()
        if len(student_channels) != len(teacher_channels):
            raise ValueError(
                f"{len(student_channels)} levels of the student, {len(teacher_channels)} of the "
                "teacher"
            )
        self.align = nn.ModuleList(
            nn.Identity() if width_in == width_out else nn.Conv2d(width_in, width_out, 1)
            for width_in, width_out in zip(student_channels, teacher_channels, strict=True)
        )

    def forward(
        self, features: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> list[Tensor]:
        """
        Args:
            features: the student's maps, (N, channels, H, W).
            shapes: (H, W) of the teacher's maps.

        Returns:
            Maps (N, teacher_channels, H, W) of these shapes.
        """
        levels = zip(self.align, features, shapes, strict=True)
        return [_resize(align(x), tuple(shape)) for align, x, shape in levels]


def _resize(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    if x.shape[-2:] == shape:
        return x
    return F.interpolate(x, shape, mode="bilinear", align_corners=False)
