"""Views of training images, made of whole batches of uint8 tensors and of their random draws.

N counts images. An image's draws decide its view, whatever batch or process it is in. Crops are
made on the device that the images are on, strong views on the CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

CROP_PADDING = 4  # pixels on each side
MAGNITUDES = 31  # strengths of torchvision's RandAugment
CUT_OUT_COLOUR = (125, 123, 114)  # the released code's, of RGB
_STRENGTHS = [v2.RandAugment(num_ops=1, magnitude=m) for m in range(MAGNITUDES)]


def crop_and_flip(
    images: Tensor, draws: Tensor, *, padding: int = CROP_PADDING, flip: bool = True
) -> Tensor:
    """A random crop of each padded image, mirrored with probability 1/2.

    Args:
        images: (N, channels, H, W).
        draws: (N, 3), uniform from 0 to 1: of the rows, the columns and the mirroring.
        padding: black pixels on each side.
        flip: whether to mirror at all; digits and letters should not be.

    Returns:
        (N, channels, H, W).
    """
    (number, _, height, width), device = images.shape, images.device
    padded = F.pad(images, [padding] * 4)
    corners = (draws[:, :2] * (2 * padding + 1)).long()
    rows = corners[:, :1] + torch.arange(height, device=device)
    columns = corners[:, 1:] + torch.arange(width, device=device)
    if flip:
        columns = torch.where(draws[:, 2:3] < 0.5, columns.flip(1), columns)
    each = torch.arange(number, device=device)[:, None, None]
    cropped = padded[each, :, rows[:, :, None], columns[:, None]]
    return cropped.permute(0, 3, 1, 2).contiguous()


def strong_view(images: Tensor, draws: Tensor) -> Tensor:
    """RandAugment with two operations of random strength on each image, then a square cut out.

    As the released code of MLD, whose squares are up to half as wide as the image; the operations
    are torchvision's.

    Args:
        images: (N, 3, H, W) uint8, cropped and flipped.
        draws: (N,), uniform from 0 to 1: of each image's random numbers.

    Returns:
        (N, 3, H, W) uint8.
    """
    views = []
    for image, draw in zip(images, draws, strict=True):
        with seeded(draw):
            views.append(_cut_out(_augment(_augment(image))))
    return torch.stack(views)


@contextmanager
def seeded(draw: Tensor) -> Iterator[None]:
    """Draw from the CPU's random numbers of a seed, and leave the run's alone.

    Args:
        draw: a scalar, uniform from 0 to 1, that is the seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(draw.double() * 2**53))
        yield


def _augment(image: Tensor) -> Tensor:
    return _STRENGTHS[int(torch.randint(MAGNITUDES, ()))](image)


def _cut_out(image: Tensor) -> Tensor:
    """Fill a square, which the left and upper edges move inwards and the others cut."""
    _, height, width = image.shape
    side = torch.rand(()) * 0.5 * width
    corner = (torch.rand(2) * torch.tensor([height, width]) - side / 2).clamp(min=0)
    (top, left), (bottom, right) = corner.long().tolist(), (corner + side).long().tolist()
    image = image.clone()
    image[:, top:bottom, left:right] = torch.tensor(CUT_OUT_COLOUR, dtype=image.dtype).view(3, 1, 1)
    return image
