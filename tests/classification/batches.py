"""Batches of image sets as the input of models."""

from classification.data import ImageBatches, Indices
from classification.views import Views


def batch_of(images: ImageBatches, indices: list[int], seed: int) -> dict:
    """Return a batch on the CPU."""
    return Views(images, "cpu")(images.__getitems__(Indices(indices, seed)))
