"""Batches of normalised views of an image set.

N counts images of a batch. Small sets are held as one uint8 tensor and augmented a batch at a time.
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

from eakd_det.errors import UserError

from .augment import crop_and_flip, seeded, strong_view
from .sources import Source, source_of


@dataclass
class Indices:
    """Which images make a batch, the seed of the augmentation, and a factor of the losses."""

    images: list[int]
    seed: int
    scale: float = 1.0


class ImageBatches(Dataset):
    """Gives whole batches: "views", a list of (N, 3, H, W) float32, and "labels", (N,).

    With them come "indices" and "scale", as they are asked for.

    The views of an image depend on the seed of the epoch alone, not on the batch that it is in.
    """

    def __init__(self, source: Source, *, is_train: bool, num_views: int = 1):
        """
        Args:
            is_train: whether to augment.
            num_views: 1 is the weak view alone, 2 a strong one beside it.
        """
        self.source, self.is_train, self.num_views = source, is_train, num_views
        self._seed = self._table = None

    def __getitems__(self, batch: Indices) -> dict[str, Any]:
        draws = self._draws(batch) if self.is_train else None
        views, labels = self._read(batch.images, draws)
        if self.is_train and self.num_views == 2:
            views[1] = strong_view(views[1], draws[:, 1, 3])
        return {
            "views": [_normalise(view, self.source) for view in views],
            "labels": labels,
            "indices": batch.images,
            "scale": batch.scale,
        }

    def _read(self, images: list[int], draws: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """uint8 views, cropped and flipped by the draws, and labels."""
        raise NotImplementedError

    def _crops(self, images: Tensor, draws: Tensor | None) -> list[Tensor]:
        """The cropped and mirrored images (N, 3, H, W) for each view; without draws as they are."""
        if draws is None:
            return [images]
        options = {"padding": self.source.crop_padding, "flip": self.source.flip}
        return [crop_and_flip(images, draw, **options) for draw in draws.unbind(1)]

    def _draws(self, batch: Indices) -> Tensor:
        """(N, views, 4), uniform from 0 to 1."""
        if (batch.seed, self.num_views) != self._seed:
            generator = torch.Generator().manual_seed(batch.seed)
            self._table = torch.rand(len(self), self.num_views, 4, generator=generator)
            self._seed = batch.seed, self.num_views
        return self._table[batch.images]


class TensorImages(ImageBatches):
    """A set in memory; whole batches are augmented."""

    def __init__(self, images: Tensor, labels: Tensor, source: Source, **options: Any):
        """
        Args:
            images: (all, 3, H, W) uint8.
            labels: (all,) int64.
            options: as those of ImageBatches.
        """
        super().__init__(source, **options)
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def _read(self, images: list[int], draws: Tensor | None) -> tuple[list[Tensor], Tensor]:
        return self._crops(self.images[images], draws), self.labels[images]


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

    def _read(self, images: list[int], draws: Tensor | None) -> tuple[list[Tensor], Tensor]:
        pictures = [
            v2.functional.pil_to_tensor(pil_loader(os.fsdecode(p))) for p in self.paths[images]
        ]
        labels = self.labels[images]
        if self.resize is None:
            return self._crops(torch.stack(pictures), draws), labels
        if draws is None:
            return [torch.stack([self.resize(picture) for picture in pictures])], labels
        views = []
        for column in draws[:, :, 0].unbind(1):
            crops = []
            for picture, draw in zip(pictures, column, strict=True):
                with seeded(draw):
                    crops.append(self.resize(picture))
            views.append(torch.stack(crops))
        return views, labels


def _normalise(images: Tensor, source: Source) -> Tensor:
    mean = 255 * torch.tensor(source.mean).view(-1, 1, 1)
    std = 255 * torch.tensor(source.std).view(-1, 1, 1)
    return images.float().sub_(mean).div_(std)


def read_images(
    name: str, root: str = "", *, is_train: bool, size: int = 0, num_views: int = 1
) -> TensorImages | FolderImages:
    """Read an image set.

    Args:
        name: of DATASETS.
        root: where its files lie; empty is $DETECTRON2_DATASETS, or ./datasets.
        is_train: the training part, augmented, or the test part.
        size: only so many images, a random choice that is always the same; 0 is all.
        num_views: of each image.

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
    views = {"is_train": is_train, "num_views": num_views}
    if size:
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randperm(len(labels), generator=generator)[:size].tolist()
        if isinstance(found, tuple):
            found = tuple(part[chosen] for part in found)
        else:
            found = [found[i] for i in chosen]
    if isinstance(found, tuple):
        return TensorImages(*found, source, **views)
    return FolderImages(found, source, **views)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")
