"""Augmented views of training images, from uint8 batches and uniform random numbers (draws).

N is the number of images. The draws of an image determine its view, in any batch and process. Crops
are computed on the images' device, strong views on the CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode, v2

CROP_PADDING = 4  # pixels on each side
CROPS = ("resized", "padded")
SCALINGS = ("bilinear", "bicubic", "nearest")
MAGNITUDES = 31  # strengths of torchvision's RandAugment
CUT_OUT_COLOUR = (125, 123, 114)  # RGB; as in the released code of MLD
_STRENGTHS = [v2.RandAugment(num_ops=1, magnitude=m) for m in range(MAGNITUDES)]


def crop_and_flip(
    images: Tensor, draws: Tensor, *, padding: int = CROP_PADDING, flip: bool = True
) -> Tensor:
    """Crop each padded image at random, and mirror it with probability 1/2.

    Args:
        images: (N, channels, H, W).
        draws: (N, 3), uniform from 0 to 1: for the rows, the columns and the mirroring.
        padding: black pixels on each side.
        flip: whether to mirror; set False for digits and letters.

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
    index = torch.arange(number, device=device)[:, None, None]
    cropped = padded[index, :, rows[:, :, None], columns[:, None]]
    return cropped.permute(0, 3, 1, 2).contiguous()


def strong_view(images: Tensor, draws: Tensor) -> Tensor:
    """Apply RandAugment with two operations of random strength to each image, and cut out a square.

    As in the released code of MLD, squares are up to half as wide as the image; the operations are
    torchvision's.

    Args:
        images: (N, 3, H, W) uint8, cropped and flipped.
        draws: (N,), uniform from 0 to 1: seeds of the images' random numbers.

    Returns:
        (N, 3, H, W) uint8.
    """
    views = []
    for image, draw in zip(images, draws, strict=True):
        with seeded(draw):
            views.append(_cut_out(_augment(_augment(image))))
    return torch.stack(views)


def whole_view(size: int, *, crop: str, interpolation: str) -> v2.Compose:
    """Return the transform of an image of any size to its central square, without augmentation.

    Args:
        size: height and width of the square.
        crop: of CROPS; a margin is cut off for "resized", as usual for ImageNet.
        interpolation: value of torchvision's InterpolationMode.
    """
    edge = round(size * 256 / 224) if crop == "resized" else size
    scale = v2.Resize(edge, InterpolationMode(interpolation), antialias=True)
    return v2.Compose([scale, v2.CenterCrop(size)])


def random_view(
    size: int, *, crop: str, flip: bool, interpolation: str, randaugment: int
) -> v2.Compose | None:
    """Return the random transform of a training image, by the CPU's random numbers.

    Args:
        crop: of CROPS; `crop_and_flip` precedes it for "padded".
        randaugment: magnitude of RandAugment's two operations; 0: none.
    """
    steps = []
    if crop == "resized":
        mode = InterpolationMode(interpolation)
        steps.append(v2.RandomResizedCrop(size, interpolation=mode, antialias=True))
        steps += [v2.RandomHorizontalFlip()] if flip else []
    if randaugment:
        steps.append(v2.RandAugment(num_ops=2, magnitude=randaugment))
    return v2.Compose(steps) if steps else None


@contextmanager
def seeded(draw: Tensor) -> Iterator[None]:
    """Seed the CPU's random numbers within the block, and restore their state after it.

    Args:
        draw: scalar, uniform from 0 to 1, that gives the seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(draw.double() * 2**53))
        yield


def _augment(image: Tensor) -> Tensor:
    return _STRENGTHS[int(torch.randint(MAGNITUDES, ()))](image)


def _cut_out(image: Tensor) -> Tensor:
    """Fill a square, shifted inside at the upper and left edges and clipped at the others."""
    _, height, width = image.shape
    side = torch.rand(()) * 0.5 * width
    corner = (torch.rand(2) * torch.tensor([height, width]) - side / 2).clamp(min=0)
    (top, left), (bottom, right) = corner.long().tolist(), (corner + side).long().tolist()
    image = image.clone()
    image[:, top:bottom, left:right] = torch.tensor(CUT_OUT_COLOUR, dtype=image.dtype).view(3, 1, 1)
    return image
