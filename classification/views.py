"""Normalised views of batches, computed on the models' device.

N is the number of images in a batch.
"""

from typing import Any

import torch
from torch import Tensor

from .augment import crop_and_flip
from .data import ImageBatches


class Views:
    """Converts batches of an image set to the input of models.

    The pixels of a set in memory are kept on the device. Of its batches, only indices, random
    numbers, labels and strong views (uint8) are copied there; of a set of files, all views (uint8).
    Copies from pinned memory are asynchronous.
    """

    def __init__(self, images: ImageBatches, device: torch.device | str):
        self.source, self.device = images.source, torch.device(device)
        self.pixels = None if images.pixels is None else images.pixels.to(self.device)
        mean, std = torch.tensor([self.source.mean, self.source.std])[:, :, None, None]
        self.mean, self.std = (255 * mean).to(self.device), (255 * std).to(self.device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the input of models for a batch.

        Args:
            batch: as returned by `ImageBatches`.

        Returns:
            "views", a list of (N, 3, H, W) float32, and "labels", (N,), on the device, and the
            batch's "indices" and "scale".
        """
        views = [self._to_device(view) for view in batch["views"]]
        if self.pixels is not None:
            views.insert(0, self._weak_view(batch["indices"], batch["draws"]))
        return {
            "views": [view.float().sub_(self.mean).div_(self.std) for view in views],
            "labels": self._to_device(batch["labels"]),
            "indices": batch["indices"],
            "scale": batch["scale"],
        }

    def _weak_view(self, indices: Tensor, draws: Tensor | None) -> Tensor:
        """Return (N, 3, H, W) uint8, cropped and flipped if there are draws."""
        images = self.pixels[self._to_device(indices)]
        if draws is None:
            return images
        padding, flip = self.source.crop_padding, self.source.flip
        return crop_and_flip(images, self._to_device(draws), padding=padding, flip=flip)

    def _to_device(self, x: Tensor) -> Tensor:
        return x.to(self.device, non_blocking=True)
