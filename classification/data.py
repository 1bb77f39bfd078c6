"""Batches of an image set: uint8 images and the random numbers of their augmentation.

N is the number of images in a batch. Small sets are held as one uint8 tensor.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets.folder import pil_loader
from torchvision.transforms import v2

from eakd_det.data.image_files import check_image_files
from eakd_det.utils.errors import UserError, format_problems

from .augment import crop_and_flip, random_view, seeded, strong_view, whole_view
from .sources import Source, data_root, source_of


@dataclass
class Indices:
    """A batch as image indices, with the augmentation seed and a factor of its losses."""

    images: list[int]
    seed: int
    scale: float = 1.0


class ImageBatches(Dataset):
    """Image set that returns whole batches, which `Views` turns into the input of models.

    A batch is a dict with
        "views": list of (N, 3, H, W) uint8, the views that are computed here,
        "draws": (N, 3), random numbers of the weak view for `crop_and_flip`, or None if "views" has
            the weak view or images are not augmented,
        "labels", "indices": (N,) int64,
        "scale": that of `Indices`.

    The views of an image depend on the epoch's seed alone, not on the batch that contains it.

    Attributes:
        pixels: (all images, 3, H, W) uint8, or None for a set that is not in memory.
    """

    pixels: Tensor | None = None

    def __init__(self, source: Source, *, is_train: bool, num_views: int = 1):
        """
        Args:
            is_train: whether to augment.
            num_views: 1 for the weak view alone, 2 for a weak and a strong view.
        """
        self.source, self.is_train, self.num_views = source, is_train, num_views
        self._seed = self._table = None

    def __getitems__(self, batch: Indices) -> dict[str, Any]:
        indices = torch.tensor(batch.images)
        draws = self._draws(indices, batch.seed) if self.is_train else None
        return {
            **self._read(indices, draws),
            "labels": self.labels[indices],
            "indices": indices,
            "scale": batch.scale,
        }

    def _read(self, indices: Tensor, draws: Tensor | None) -> dict[str, Any]:
        """Return "views" and "draws" of a batch from the draws of all its views, (N, views, 4)."""
        raise NotImplementedError

    def _crop(self, images: Tensor, draws: Tensor) -> Tensor:
        options = {"padding": self.source.crop_padding, "flip": self.source.flip}
        return crop_and_flip(images, draws, **options)

    def _draws(self, indices: Tensor, seed: int) -> Tensor:
        """Return random numbers (N, views, 4), uniform from 0 to 1."""
        if (seed, self.num_views) != self._seed:
            generator = torch.Generator().manual_seed(seed)
            self._table = torch.rand(len(self), self.num_views, 4, generator=generator)
            self._seed = seed, self.num_views
        return self._table[indices]


class TensorImages(ImageBatches):
    """An image set in memory, whose weak views are computed batch-wise on the models' device.

    Strong views are computed here, image by image: RandAugment's operations round differently on
    other devices, and are chosen by the CPU's random numbers.
    """

    def __init__(self, images: Tensor, labels: Tensor, source: Source, **options: Any):
        """
        Args:
            images: (all images, 3, H, W) uint8.
            labels: (all images,) int64.
            options: keyword arguments of ImageBatches.
        """
        super().__init__(source, **options)
        self.pixels, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.pixels)

    def _read(self, indices: Tensor, draws: Tensor | None) -> dict[str, Any]:
        if draws is None:
            return {"views": [], "draws": None}
        strong = [
            strong_view(self._crop(self.pixels[indices], draw), draw[:, 3])
            for draw in draws.unbind(1)[1:]
        ]
        return {"views": strong, "draws": draws[:, 0, :3].contiguous()}


class FolderImages(ImageBatches):
    """A set of image files, read and augmented one by one by DATASET.NUM_WORKERS processes."""

    def __init__(self, samples: Sequence[tuple[str, int]], source: Source, **options: Any):
        """
        Args:
            samples: (path, label) of each image.
            options: keyword arguments of ImageBatches.
        """
        super().__init__(source, **options)
        # An array, whose memory forked workers share; reading a list would copy it into each.
        self.paths = np.array([os.fsencode(path) for path, _ in samples])
        self.labels = torch.tensor([label for _, label in samples])
        self.whole = self.random = None
        if source.is_resized:
            size = source.image_size
            keys = {"crop": source.crop, "interpolation": source.interpolation}
            own = {"flip": source.flip, "randaugment": source.randaugment}
            self.whole = whole_view(size, **keys)
            self.random = random_view(size, **keys, **own)

    def __len__(self) -> int:
        return len(self.paths)

    def _read(self, indices: Tensor, draws: Tensor | None) -> dict[str, Any]:
        files = [_read_file(os.fsdecode(p)) for p in self.paths[indices.numpy()]]
        views = self._views(files, draws)
        if draws is not None and self.num_views == 2:
            views[1] = strong_view(views[1], draws[:, 1, 3])
        return {"views": views, "draws": None}

    def _views(self, files: list[Tensor], draws: Tensor | None) -> list[Tensor]:
        """Return (N, 3, H, W) for each view, cropped and flipped if there are draws."""
        is_padded = self.source.crop == "padded"
        if self.whole is not None and (is_padded or draws is None):
            files = [self.whole(image) for image in files]
        if draws is None:
            return [torch.stack(files)]
        views = []
        for draw in draws.unbind(1):
            view = self._crop(torch.stack(files), draw) if is_padded else files
            views.append(view if self.random is None else self._vary(view, draw[:, 0]))
        return views

    def _vary(self, images: Sequence[Tensor], draws: Tensor) -> Tensor:
        """Return (N, 3, H, W) from the random transform of each image."""
        varied = []
        for image, draw in zip(images, draws, strict=True):
            with seeded(draw):
                varied.append(self.random(image))
        return torch.stack(varied)


def read_images(
    data: CfgNode,
    *,
    is_train: bool,
    size: int = 0,
    num_views: int = 1,
    augment: bool = True,
) -> TensorImages | FolderImages:
    """Read an image set.

    Args:
        data: node DATASET of a config.
        is_train: read the training set, else the test set, which is never augmented.
        size: number of images, a fixed random subset; 0: all.
        num_views: number of views of each image.
        augment: whether to augment the training set.

    Raises:
        UserError: there is no such set, files are missing, it has more class folders than classes,
            fewer than `size` images, or images that cannot be used.
    """
    source, name, root = source_of(data), data.NAME, data_root(data)
    try:
        found = source.read(root, is_train)
    except (RuntimeError, FileNotFoundError) as error:
        raise UserError(
            f"{name} is not in {root} (DATASET.ROOT; {_first_line(error)}). To get it: "
            f"{source.fetch.format(root=root)}"
        ) from error
    labels = found[1] if isinstance(found, tuple) else found
    if not isinstance(found, tuple) and max(label for _, label in found) >= source.num_classes:
        raise UserError(f"{name} has {source.num_classes} classes, but more folders in {root}.")
    if size > len(labels):
        raise UserError(f"DATASET.TRAIN_SIZE {size}: {name} has {len(labels)} images.")
    views = {"is_train": is_train and augment, "num_views": num_views}
    if size:
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randperm(len(labels), generator=generator)[:size].tolist()
        if isinstance(found, tuple):
            found = tuple(part[chosen] for part in found)
        else:
            found = [found[i] for i in chosen]
    if isinstance(found, tuple):
        return TensorImages(*found, source, **views)
    _check_files([path for path, _ in found], 0 if source.is_resized else source.image_size)
    return FolderImages(found, source, **views)


def _check_files(paths: Sequence[str], size: int) -> None:
    """Check image files before the training.

    Args:
        size: required height and width; 0: any.

    Raises:
        UserError: files cannot be read or have another size.
    """
    problems = []
    for path, file in zip(paths, check_image_files(paths), strict=True):
        if file.problem:
            problems.append(file.problem)
        elif size and file[:2] != (size, size):
            problems.append(f"{path} has {file.width} x {file.height} pixels, not {size} x {size}")
    if problems:
        listing = format_problems(problems)
        raise UserError(f"{len(problems)} of {len(paths)} images cannot be used:\n{listing}")


def _read_file(path: str) -> Tensor:
    """Read an image as (3, H, W) uint8.

    Raises:
        UserError: the file has become unreadable since it was checked.
    """
    try:
        return v2.functional.pil_to_tensor(pil_loader(path))
    except Exception as error:  # Pillow raises almost any type for a damaged file
        raise UserError(
            f"{path} cannot be read: {error}. Repair or remove it, then continue with --resume."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")
