"""Nodes DATASET, and batches of image sets as the input of models."""

from detectron2.config import CfgNode

from classification.config import classification_config
from classification.data import ImageBatches, Indices
from classification.views import Views


def batch_of(images: ImageBatches, indices: list[int], seed: int) -> dict:
    """Return a batch on the CPU."""
    return Views(images, "cpu")(images.__getitems__(Indices(indices, seed)))


def data_of(name: str, root: str = "", **keys) -> CfgNode:
    """Return a node DATASET."""
    data = classification_config().DATASET
    data.update(NAME=name, ROOT=root, **keys)
    return data
