"""Masks of the cells of a feature map that boxes cover; N counts images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .reduction import at_least_float32


def box_fractions(
    boxes: Sequence[Tensor], sizes: Sequence[tuple[float, float]]
) -> list[tuple[Tensor, Tensor]]:
    """Return the (boxes, 2) first and last x, and y, of each image's boxes as fractions of a size.

    Args:
        boxes: (boxes, 4) of each image, xyxy.
        sizes: (height, width) of what the map covers, in the boxes' unit.
    """
    corners = (at_least_float32(x) for x in boxes)
    return [
        (x[:, 0::2] / width, x[:, 1::2] / height)
        for x, (height, width) in zip(corners, sizes, strict=True)
    ]


@torch.no_grad()
def box_masks(
    fractions: Sequence[tuple[Tensor, Tensor]], shape: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Return the weights of foreground and background of a map (arXiv 2111.11837, equations 2-3).

    A box covers the cells from the floor of its first to the ceiling of its last corner, both of
    them included. Nothing is read back from the device.

    Args:
        fractions: those of `box_fractions`.
        shape: (H, W) of the map.

    Returns:
        Two of (N, H, W). Foreground: 1 / (number of cells) of the smallest box that covers the cell
        (cells outside the map are counted), else 0. Background: 1 / (number of cells outside all
        boxes of the image) in these, else 0.
    """
    x, y = (torch.cat(part) for part in zip(*fractions, strict=True))
    sides = []
    for corners, cells in ((y, shape[0]), (x, shape[1])):
        first, last = (corners[:, :1] * cells).floor(), (corners[:, 1:] * cells).ceil()
        index = torch.arange(cells, device=corners.device)
        sides.append(((index >= first) & (index <= last), last + 1 - first))
    (rows, heights), (columns, widths) = sides
    counts = [len(x) for x, _ in fractions]
    weights = 1 / (heights * widths)
    split = zip(rows.split(counts), columns.split(counts), weights.split(counts), strict=True)
    # Image by image, so that not all (boxes, H, W) are in memory at once.
    foreground = torch.stack([_of_image(i, j, weight, shape) for i, j, weight in split])
    outside = (foreground == 0).to(foreground.dtype)
    return foreground, outside / outside.sum(dim=(1, 2), keepdim=True).clamp(min=1)


def _of_image(rows: Tensor, columns: Tensor, weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the foreground (H, W), from (boxes, H), (boxes, W) and (boxes, 1)."""
    if not len(weight):
        return weight.new_zeros(shape)
    covered = rows[:, :, None] & columns[:, None, :]
    return torch.where(covered, weight[:, :, None], 0).amax(dim=0)
