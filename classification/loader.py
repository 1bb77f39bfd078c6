"""Loaders of training and test batches, for one process or several.

A training step depends on the seed and its number alone: a resumed run reads on where it was,
whatever the number of workers, and several processes read what one would.
"""

from collections.abc import Iterator
from typing import Any

import torch
from detectron2.utils import comm
from torch.utils.data import DataLoader

from .data import ImageBatches, Indices
from .views import Views

LARGE_PRIME = 1_000_003  # keeps what runs of neighbouring seeds draw apart


class TrainBatches:
    """Endless batches of a shuffled set, epoch after epoch, each of all its images once.

    The last step of an epoch has the images that are left. What a step has is shared out among
    processes and parts, and where shares differ in size, `Indices.scale` lets each image count
    alike. A share without an image gets one that does not count.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        *,
        seed: int,
        parts: int = 1,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
    ):
        """
        Args:
            batch_size: images of a step over all processes and parts.
            parts: batches that this process computes a step in.
            rank, world_size: of this process.
            start: steps to skip.
        """
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.parts, self.rank, self.world_size = parts, rank, world_size
        self.start = start
        self.steps_per_epoch = -(-num_images // batch_size)

    def __iter__(self) -> Iterator[Indices]:
        epoch, place = divmod(self.start, self.steps_per_epoch)
        shares = self.world_size * self.parts
        while True:
            seed = self.seed * LARGE_PRIME + epoch
            generator = torch.Generator().manual_seed(seed)
            order = torch.randperm(self.num_images, generator=generator).tolist()
            for step in range(place, self.steps_per_epoch):
                images = order[step * self.batch_size :][: self.batch_size]
                for part in range(self.parts):
                    share = images[self.rank * self.parts + part :: shares]
                    scale = len(share) * shares / len(images)
                    yield Indices(share or images[:1], seed, scale)
            epoch, place = epoch + 1, 0


class ViewLoader(DataLoader):
    """A DataLoader whose batches the process that reads them makes into views, on its device."""

    def __init__(self, images: ImageBatches, batches: Any, num_workers: int, device: str):
        """
        Args:
            batches: gives `Indices`.
            device: that of the models.
        """
        super().__init__(
            images,
            batch_sampler=batches,
            num_workers=num_workers,
            collate_fn=_as_it_is,
            pin_memory=torch.device(device).type == "cuda",
            # The seeds of the workers would otherwise be drawn from the run's random numbers.
            generator=torch.Generator(),
        )
        self.views = Views(images, device)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self.views, super().__iter__())


def build_train_loader(
    images: ImageBatches,
    batch_size: int,
    *,
    seed: int,
    parts: int = 1,
    num_workers: int = 0,
    device: str = "cpu",
) -> ViewLoader:
    """An endless loader of this process's share of the training batches.

    Its batch_sampler's `start` are the steps to skip.
    """
    batches = TrainBatches(
        len(images),
        batch_size,
        seed=seed,
        parts=parts,
        rank=comm.get_rank(),
        world_size=comm.get_world_size(),
    )
    return ViewLoader(images, batches, num_workers, device)


def build_test_loader(
    images: ImageBatches, batch_size: int, *, num_workers: int = 0, device: str = "cpu"
) -> ViewLoader:
    """A loader of this process's share of a test set, each image once."""
    mine = range(comm.get_rank(), len(images), comm.get_world_size())
    batches = [
        Indices(list(mine[i : i + batch_size]), seed=0) for i in range(0, len(mine), batch_size)
    ]
    return ViewLoader(images, batches, num_workers, device)


def _as_it_is(batch: dict[str, Any]) -> dict[str, Any]:
    return batch
