"""Batches of normalised views of an image set.

N counts images of a batch. Small sets are held as one uint8 tensor and augmented a batch at a time.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    """Which images make a batch, and the seed of the epoch's augmentation."""

    images: list[int]
    seed: int


class ImageBatches(Dataset):
    """Gives whole batches: "views", a list of (N, 3, H, W) float32; "labels", (N,); "indices".

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
        }

    def _read(self, images: list[int], draws: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """uint8 views, cropped and flipped by the draws, and labels."""
        raise NotImplementedError

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
        chosen = self.images[images]
        options = {"padding": self.source.crop_padding, "flip": self.source.flip}
        views = [chosen]
        if draws is not None:
            views = [crop_and_flip(chosen, draw, **options) for draw in draws.unbind(1)]
        return views, self.labels[images]


class FolderImages(ImageBatches):
    """A set of image files, read and augmented one by one (DATASET.NUM_WORKERS shares them out)."""

    def __init__(self, samples: Sequence[tuple[str, int]], source: Source, **options: Any):
        """
        Args:
            samples: path and label of each image.
            options: as those of ImageBatches.
        """
        super().__init__(source, **options)
        self.samples = samples
        size = source.image_size
        crop = [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]
        if not self.is_train:
            crop = [v2.Resize(round(size * 256 / 224), antialias=True), v2.CenterCrop(size)]
        self.crop = v2.Compose([v2.PILToTensor(), *crop])

    def __len__(self) -> int:
        return len(self.samples)

    def _read(self, images: list[int], draws: Tensor | None) -> tuple[list[Tensor], Tensor]:
        pictures = [pil_loader(self.samples[i][0]) for i in images]
        labels = torch.tensor([self.samples[i][1] for i in images])
        if draws is None:
            return [torch.stack([self.crop(picture) for picture in pictures])], labels
        views = []
        for column in draws[:, :, 0].unbind(1):
            crops = []
            for picture, draw in zip(pictures, column, strict=True):
                with seeded(draw):
                    crops.append(self.crop(picture))
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
            f"{name} is not in {root} (DATASET.ROOT). To get it: {source.fetch.format(root=root)}"
        ) from error
    labels = found[1] if isinstance(found, tuple) else found
    if size > len(labels):
        raise UserError(f"DATASET.TRAIN_SIZE {size}: {name} has {len(labels)} images.")
    if size:
        chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:size]
    else:
        chosen = torch.arange(len(labels))
    views = {"is_train": is_train, "num_views": num_views}
    if isinstance(found, tuple):
        return TensorImages(*(part[chosen] for part in found), source, **views)
    return FolderImages([found[i] for i in chosen], source, **views)
