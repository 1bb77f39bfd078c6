"""Feature maps of two detectors that pad their images differently."""

from collections.abc import Iterable, Mapping

from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]  # height, width


def crop_to_common(
    student_maps: list[Tensor], teacher_maps: list[Tensor], padded_size: Size
) -> tuple[list[Tensor], list[Tensor], Size]:
    """Crop each pair of maps to the positions that both have, at the top left.

    Two maps of the same stride differ in size if one detector pads its images further to the right
    and to the bottom. Maps of the same size are returned as they are.

    Args:
        student_maps, teacher_maps: (B, channels, H, W) of each level, of the same stride; finest
            first.
        padded_size: of the student's images, in pixels.

    Returns:
        The maps, and the size in pixels that they cover.
    """
    pairs = [_crop(*maps) for maps in zip(student_maps, teacher_maps, strict=True)]
    before, after = student_maps[0].shape[-2:], pairs[0][0].shape[-2:]
    height, width = (
        pixels * kept // whole
        for pixels, kept, whole in zip(padded_size, after, before, strict=True)
    )
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs], (height, width)


def _crop(*maps: Tensor) -> list[Tensor]:
    height, width = (min(x.shape[dim] for x in maps) for dim in (-2, -1))
    return [x if x.shape[-2:] == (height, width) else x[..., :height, :width] for x in maps]


def map_sizes(features: Mapping[str, Tensor], levels: Iterable[str]) -> list[Size]:
    """Return (height, width) of the maps of some levels."""
    return [(features[level].shape[-2], features[level].shape[-1]) for level in levels]


def extend(features: Tensor, size: Size) -> Tensor:
    """Return a map (B, channels, H, W) of at least a size, with zeros at its right and bottom."""
    height, width = (
        max(there - here, 0) for here, there in zip(features.shape[-2:], size, strict=True)
    )
    return F.pad(features, (0, width, 0, height)) if height or width else features
