"""Position of a resumed run in its training data."""

import itertools
import logging
from collections.abc import Iterable, Iterator

import torch
from detectron2.data.common import AspectRatioGroupedDataset, MapDataset, ToIterableDataset
from torch.utils.data import DataLoader, Sampler

from eakd_det.utils.errors import UserError


def sampler_seed(loader: Iterable) -> int | None:
    """Return the seed by which a training loader's sampler shuffles.

    None without a sampler, or for a sampler without a seed of Detectron2's kind.
    """
    samples = _samples(loader)
    return None if samples is None else vars(samples.sampler).get("_seed")


def skip_batches(loader: Iterable, num_batches: int, *, seed: int | None = None) -> None:
    """Start a new training loader of Detectron2 after the batches that a run has consumed.

    This reads the sizes of the images only. With DATALOADER.NUM_WORKERS up to 1 the order of the
    images continues exactly; more workers read ahead in an order of their own, so that within a
    window of workers x batch an image may come twice or not at all. Images that wait for others of
    their aspect ratio are read and augmented again.

    Args:
        loader: of the resumed run; no batch has been taken from it.
        num_batches: batches consumed by this process.
        seed: of the run's sampler; None if the new one has the same.

    Raises:
        UserError: images are grouped by aspect ratio, and the dataset does not give their sizes.
    """
    samples, is_grouped = _samples(loader), isinstance(loader, AspectRatioGroupedDataset)
    if samples is None:
        logging.getLogger(__name__).warning(
            "--resume: the training data are a stream, or come from a loader that is not "
            "Detectron2's: they start again from their beginning."
        )
        return
    if seed is not None:
        samples.sampler._seed = seed
    # The loader draws its workers' seeds from here, and leaves the run's own random numbers alone.
    inner = image_loader(loader)
    own_seed = (torch.initial_seed() * 1_000_003 + num_batches) % 2**63  # differs by process
    inner.generator = torch.Generator().manual_seed(own_seed)
    if is_grouped:
        consumed, waiting = _replay(samples, loader.batch_size, num_batches)
    else:
        consumed, waiting = num_batches * loader.batch_size, []
    samples.sampler = _Later(samples.sampler, consumed, waiting)


def image_loader(loader: Iterable) -> Iterable:
    """Return the loader of images within a training loader that groups them by aspect ratio."""
    return loader.dataset if isinstance(loader, AspectRatioGroupedDataset) else loader


def _samples(loader: Iterable) -> ToIterableDataset | None:
    """Return the dataset that Detectron2's training loader batches: images in a sampler's order.

    None for a stream, and for a loader that is not Detectron2's.
    """
    inner = image_loader(loader)
    is_known = isinstance(inner, DataLoader) and isinstance(inner.dataset, ToIterableDataset)
    return inner.dataset if is_known else None


def _replay(samples: ToIterableDataset, batch_size: int, num_batches: int) -> tuple[int, list[int]]:
    """Return the number of samples that the batches took, and the indices that still wait."""
    is_wide: dict[int, bool] = {}
    waiting = {True: [], False: []}
    images = samples.dataset
    records = images._dataset if isinstance(images, MapDataset) else images
    consumed = 0
    indices = iter(samples.sampler)
    while num_batches:
        index = next(indices)
        consumed += 1
        if index not in is_wide:
            record = records[index]
            if not {"width", "height"} <= record.keys():
                raise UserError(
                    f"--resume: the record of {record.get('file_name')} has no width and height, "
                    "by which images are grouped: let the dataset give them, or set "
                    "DATALOADER.ASPECT_RATIO_GROUPING False."
                )
            is_wide[index] = record["width"] > record["height"]
        bucket = waiting[is_wide[index]]
        bucket.append(index)
        if len(bucket) == batch_size:
            bucket.clear()
            num_batches -= 1
    return consumed, waiting[True] + waiting[False]


class _Later(Sampler):
    """An infinite sampler from an index on, preceded by a few indices."""

    def __init__(self, sampler: Sampler, start: int, first: list[int]):
        self.sampler, self.start, self.first = sampler, start, first
        self._seed = vars(sampler).get("_seed")  # for the next checkpoint

    def __iter__(self) -> Iterator[int]:
        yield from self.first
        yield from itertools.islice(self.sampler, self.start, None)
