"""Data loaders for training and evaluation, on one process or several.

The images of a training step depend on the seed and the number of the step alone: a resumed run
continues where it stopped, with any number of workers, and several processes together read the
images that one process would.
"""

from collections.abc import Iterator
from typing import Any

import torch
from detectron2.utils import comm
from torch.utils.data import DataLoader

from .data import ImageBatches, Indices
from .views import Views

LARGE_PRIME = 1_000_003  # gives runs of adjacent seeds different random numbers


class TrainBatches:
    """Endless batch sampler, which shuffles the images anew for each epoch.

    The last step of an epoch has the remaining images. The images of a step are split over
    processes and micro-batches; `Indices.scale` gives each image the same weight if they differ in
    size. An empty micro-batch gets one image, with a scale of 0.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        *,
        seed: int,
        micro_batches: int = 1,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
    ):
        """
        Args:
            batch_size: images per step, over all processes and micro-batches.
            micro_batches: micro-batches per step on each process.
            rank, world_size: rank of this process, and number of processes.
            start: number of steps to skip.
        """
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.micro_batches, self.rank, self.world_size = micro_batches, rank, world_size
        self.start = start
        self.steps_per_epoch = -(-num_images // batch_size)

    def __iter__(self) -> Iterator[Indices]:
        epoch, first_step = divmod(self.start, self.steps_per_epoch)
        shares = self.world_size * self.micro_batches
        while True:
            seed = self.seed * LARGE_PRIME + epoch
            generator = torch.Generator().manual_seed(seed)
            order = torch.randperm(self.num_images, generator=generator).tolist()
            for step in range(first_step, self.steps_per_epoch):
                images = order[step * self.batch_size :][: self.batch_size]
                for i in range(self.micro_batches):
                    share = images[self.rank * self.micro_batches + i :: shares]
                    scale = len(share) * shares / len(images)
                    yield Indices(share or images[:1], seed, scale)
            epoch, first_step = epoch + 1, 0


class ViewLoader(DataLoader):
    """DataLoader whose batches become views in the main process, on the models' device."""

    def __init__(self, images: ImageBatches, batches: Any, num_workers: int, device: str):
        """
        Args:
            batches: batch sampler of `Indices`.
            device: the models' device.
        """
        super().__init__(
            images,
            batch_sampler=batches,
            num_workers=num_workers,
            collate_fn=_identity,
            pin_memory=torch.device(device).type == "cuda",
            # By default the workers' seeds would be drawn from the run's random numbers.
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
    micro_batches: int = 1,
    num_workers: int = 0,
    device: str = "cpu",
) -> ViewLoader:
    """Build an endless loader of this process's share of the training batches.

    `batch_sampler.start` of the loader is the number of steps to skip.
    """
    batches = TrainBatches(
        len(images),
        batch_size,
        seed=seed,
        micro_batches=micro_batches,
        rank=comm.get_rank(),
        world_size=comm.get_world_size(),
    )
    return ViewLoader(images, batches, num_workers, device)


def build_test_loader(
    images: ImageBatches, batch_size: int, *, num_workers: int = 0, device: str = "cpu"
) -> ViewLoader:
    """Build a loader of this process's share of a test set, each image once."""
    mine = range(comm.get_rank(), len(images), comm.get_world_size())
    batches = [
        Indices(list(mine[i : i + batch_size]), seed=0) for i in range(0, len(mine), batch_size)
    ]
    return ViewLoader(images, batches, num_workers, device)


def _identity(batch: dict[str, Any]) -> dict[str, Any]:
    return batch
