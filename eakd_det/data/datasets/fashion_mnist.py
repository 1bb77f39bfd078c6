"""Files of Fashion-MNIST, from torchvision or from Debian's package."""

import os
import shutil
from uuid import uuid4

from torch import Tensor
from torchvision import datasets

NAMES = [
    *("T-shirt", "trousers", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
]
DEBIAN_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"  # of its package dataset-fashion-mnist
# Command that gets missing files into the folder {root}.
FETCH_FASHION_MNIST = (
    "apt-get install dataset-fashion-mnist, or "
    'python -c "from torchvision.datasets import FashionMNIST; '
    "FashionMNIST('{root}', download=True)\""
)


def read_fashion_mnist(root: str, is_train: bool) -> tuple[Tensor, Tensor]:
    """Read root/FashionMNIST, into which Debian's package is unpacked if the folder is missing.

    Returns:
        (N, 28, 28) uint8, bright garments on black, and (N,) int64 labels.

    Raises:
        RuntimeError: the files are in neither place.
    """
    raw = os.path.join(root, "FashionMNIST", "raw")
    if not os.path.isdir(raw) and os.path.isdir(DEBIAN_FASHION_MNIST):
        _unpack(DEBIAN_FASHION_MNIST, raw)
    images = datasets.FashionMNIST(root, train=is_train)
    return images.data, images.targets


def _unpack(packed: str, folder: str) -> None:
    aside = f"{folder}.{uuid4().hex}"  # another process may do the same
    os.makedirs(aside)
    for name in os.listdir(packed):
        datasets.utils.extract_archive(os.path.join(packed, name), aside)
    try:
        os.rename(aside, folder)
    except OSError:  # the other process was first
        if not os.path.isdir(folder):
            raise
        shutil.rmtree(aside)
