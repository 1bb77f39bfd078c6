"""Feature maps of two detectors that pad their images differently."""

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]  # height, width


def crop_to_common(
    student_maps: Sequence[Tensor],
    teacher_maps: Sequence[Tensor],
    strides: Sequence[tuple[int, int]],
    padded_size: Size,
) -> tuple[list[Tensor], list[Tensor], Size]:
    """Crop each pair of maps to the part of the image that both cover, at the top left.

    One detector may pad its images further to the right and to the bottom than the other. Maps that
    cover the same are returned as they are.

    Args:
        student_maps, teacher_maps: (B, channels, H, W) of each level; finest first.
        strides: of the student's and the teacher's map of each level, in pixels.
        padded_size: of the student's images, in pixels.

    Returns:
        The maps, and the size in pixels that they cover.
    """
    if not student_maps:
        return [], [], padded_size
    levels = zip(student_maps, teacher_maps, strides, strict=True)
    pairs = [_crop([a, b], of_both) for a, b, of_both in levels]
    before, after = student_maps[0].shape[-2:], pairs[0][0].shape[-2:]
    height, width = (
        pixels * kept // whole
        for pixels, kept, whole in zip(padded_size, after, before, strict=True)
    )
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs], (height, width)


def _crop(maps: Sequence[Tensor], strides: Sequence[int]) -> list[Tensor]:
    covered = [(x.shape[-2] * s, x.shape[-1] * s) for x, s in zip(maps, strides, strict=True)]
    height, width = (min(sides) for sides in zip(*covered, strict=True))
    # A map may reach beyond the common part by less than one of its cells.
    sizes = [(-(-height // s), -(-width // s)) for s in strides]
    return [
        x if x.shape[-2:] == (h, w) else x[..., :h, :w]
        for x, (h, w) in zip(maps, sizes, strict=True)
    ]


def map_sizes(features: Mapping[str, Tensor], levels: Iterable[str]) -> list[Size]:
    """Return (height, width) of the maps of some levels."""
    return [(features[level].shape[-2], features[level].shape[-1]) for level in levels]


def extend(features: Tensor, size: Size) -> Tensor:
    """Return a map (B, channels, H, W) of at least a size, with zeros at its right and bottom."""
    height, width = (
        max(there - here, 0) for here, there in zip(features.shape[-2:], size, strict=True)
    )
    return F.pad(features, (0, width, 0, height)) if height or width else features
