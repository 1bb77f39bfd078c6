"""Batches of an image set, as bytes and as random draws.

N counts images of a batch. Small sets are held as one uint8 tensor.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets.folder import pil_loader
from torchvision.transforms import v2

from eakd_det.data.image_files import check_image_files
from eakd_det.utils.errors import UserError, format_problems

from .augment import crop_and_flip, seeded, strong_view
from .sources import Source, source_of


@dataclass
class Indices:
    """Which images make a batch, the seed of the augmentation, and a factor of the losses."""

    images: list[int]
    seed: int
    scale: float = 1.0


class ImageBatches(Dataset):
    """Gives whole batches, which `Views` makes into what models take.

    A batch has
        "views": a list of (N, 3, H, W) uint8, those views that are made here,
        "draws": (N, 3) of `crop_and_flip`, or None where the weak view is among the views, or as
            it is,
        "labels", "indices": (N,) int64,
        "scale": as it is asked for.

    The views of an image depend on the seed of the epoch alone, not on the batch that it is in.

    Attributes:
        pixels: (all, 3, H, W) uint8, or None of a set that is not in memory.
    """

    pixels: Tensor | None = None

    def __init__(self, source: Source, *, is_train: bool, num_views: int = 1):
        """
        Args:
            is_train: whether to augment.
            num_views: 1 is the weak view alone, 2 a strong one beside it.
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
        """ "views" and "draws" of a batch, from the draws of its views, (N, views, 4)."""
        raise NotImplementedError

    def _crop(self, images: Tensor, draws: Tensor) -> Tensor:
        options = {"padding": self.source.crop_padding, "flip": self.source.flip}
        return crop_and_flip(images, draws, **options)

    def _draws(self, indices: Tensor, seed: int) -> Tensor:
        """(N, views, 4), uniform from 0 to 1."""
        if (seed, self.num_views) != self._seed:
            generator = torch.Generator().manual_seed(seed)
            self._table = torch.rand(len(self), self.num_views, 4, generator=generator)
            self._seed = seed, self.num_views
        return self._table[indices]


class TensorImages(ImageBatches):
    """A set in memory; the weak views of whole batches are made where the models are.

    Strong views are made here, one by one: RandAugment's operations round differently on another
    device, and their choice is drawn on the CPU.
    """

    def __init__(self, images: Tensor, labels: Tensor, source: Source, **options: Any):
        """
        Args:
            images: (all, 3, H, W) uint8.
            labels: (all,) int64.
            options: as those of ImageBatches.
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
    """A set of image files, read and augmented one by one (DATASET.NUM_WORKERS shares them out)."""

    def __init__(self, samples: Sequence[tuple[str, int]], source: Source, **options: Any):
        """
        Args:
            samples: path and label of each image.
            options: as those of ImageBatches.
        """
        super().__init__(source, **options)
        # Arrays, which forked workers share: lists would be copied into each as they are read.
        self.paths = np.array([os.fsencode(path) for path, _ in samples])
        self.labels = torch.tensor([label for _, label in samples])
        size = source.image_size
        self.resize = None
        if source.is_resized and self.is_train:
            scale = v2.RandomResizedCrop(size, antialias=True)
            self.resize = v2.Compose([scale, v2.RandomHorizontalFlip()])
        elif source.is_resized:
            scale = v2.Resize(round(size * 256 / 224), antialias=True)
            self.resize = v2.Compose([scale, v2.CenterCrop(size)])

    def __len__(self) -> int:
        return len(self.paths)

    def _read(self, indices: Tensor, draws: Tensor | None) -> dict[str, Any]:
        pictures = [_read_picture(os.fsdecode(p)) for p in self.paths[indices.numpy()]]
        views = self._views(pictures, draws)
        if draws is not None and self.num_views == 2:
            views[1] = strong_view(views[1], draws[:, 1, 3])
        return {"views": views, "draws": None}

    def _views(self, pictures: list[Tensor], draws: Tensor | None) -> list[Tensor]:
        """(N, 3, H, W) cropped and flipped for each view; without draws as they are."""
        if self.resize is None:
            images = torch.stack(pictures)
            return [images] if draws is None else [self._crop(images, d) for d in draws.unbind(1)]
        if draws is None:
            return [torch.stack([self.resize(picture) for picture in pictures])]
        views = []
        for column in draws[:, :, 0].unbind(1):
            crops = []
            for picture, draw in zip(pictures, column, strict=True):
                with seeded(draw):
                    crops.append(self.resize(picture))
            views.append(torch.stack(crops))
        return views


def read_images(
    name: str,
    root: str = "",
    *,
    is_train: bool,
    size: int = 0,
    num_views: int = 1,
    augment: bool = True,
) -> TensorImages | FolderImages:
    """Read an image set.

    Args:
        name: of DATASETS.
        root: where its files lie; empty is $DETECTRON2_DATASETS, or ./datasets.
        is_train: the training part, or the test part, which is never augmented.
        size: only so many images, a random choice that is always the same; 0 is all.
        num_views: of each image.
        augment: whether the training part is.

    Raises:
        UserError: there is no such set, its files are missing, or it has fewer images.
    """
    source = source_of(name)
    root = root or os.getenv("DETECTRON2_DATASETS", "datasets")
    try:
        found = source.read(root, is_train)
    except (RuntimeError, FileNotFoundError) as error:
        raise UserError(
            f"{name} is not in {root} (DATASET.ROOT; {_first_line(error)}). To get it: "
            f"{source.fetch.format(root=root)}"
        ) from error
    labels = found[1] if isinstance(found, tuple) else found
    if not isinstance(found, tuple) and max(label for _, label in found) >= source.num_classes:
        raise UserError(f"{name} has {source.num_classes} classes, and the folders in {root} more.")
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
    check_pictures([path for path, _ in found], 0 if source.is_resized else source.image_size)
    return FolderImages(found, source, **views)


def check_pictures(paths: Sequence[str], size: int = 0) -> None:
    """Check image files before training; see `check_image_files`.

    Args:
        size: height and width that all must have; 0 is any.

    Raises:
        UserError: some cannot be read, or are of another size.
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


def _read_picture(path: str) -> Tensor:
    """(3, H, W) uint8.

    Raises:
        UserError: the file has been broken since it was checked.
    """
    try:
        return v2.functional.pil_to_tensor(pil_loader(path))
    except Exception as error:  # of a broken image, almost any
        raise UserError(
            f"{path} cannot be read: {error}. Mend or remove it; then --resume goes on."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")
