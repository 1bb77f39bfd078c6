"""Image sets by name: those of torchvision, scikit-learn and Debian, and folders of images."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from eakd_det.data.datasets.fashion_mnist import FETCH_FASHION_MNIST, NAMES, read_fashion_mnist
from eakd_det.utils.errors import UserError

from .augment import CROP_PADDING

NUM_TRAIN_DIGITS = 1297  # of 1797; the file is ordered by writer, so the test set has other writers


@dataclass
class Source:
    """An image set.

    Attributes:
        read: (root, is_train) -> (images, labels) for TensorImages, or samples for FolderImages.
        num_classes: number of classes.
        mean, std: of each channel, for values between 0 and 1.
        crop_padding, flip: arguments of `crop_and_flip`.
        image_size: height and width of the models' input.
        is_resized: for image files: they have any size, and crops of them are scaled to
            `image_size` instead of `crop_and_flip`.
        fetch: command that downloads missing files, with {root}.
        names: class names; if empty, classes are shown by number.
    """

    read: Callable[[str, bool], Any]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    crop_padding: int = CROP_PADDING
    flip: bool = True
    is_resized: bool = True
    fetch: str = ""
    names: tuple[str, ...] = ()


def _cifar(dataset: type, root: str, is_train: bool) -> tuple[Tensor, Tensor]:
    images = dataset(root, train=is_train)
    pixels = torch.from_numpy(images.data).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.tensor(images.targets)


def _fashion_mnist(root: str, is_train: bool) -> tuple[Tensor, Tensor]:
    images, labels = read_fashion_mnist(root, is_train)
    return images[:, None].repeat(1, 3, 1, 1), labels


def _digits(root: str, is_train: bool) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits  # slow to import

    digits = load_digits()
    part = slice(None, NUM_TRAIN_DIGITS) if is_train else slice(NUM_TRAIN_DIGITS, None)
    images = torch.from_numpy(digits.images[part] / 16 * 255).round().to(torch.uint8)
    return images[:, None].repeat(1, 3, 1, 1), torch.from_numpy(digits.target[part])


def _folders(name: str, root: str, is_train: bool) -> list[tuple[str, int]]:
    """List the images of one folder per class; the training set defines the classes."""
    train, val = (os.path.join(root, name, split) for split in ("train", "val"))
    classes, numbers = find_classes(train)
    others = set(find_classes(val)[0]) ^ set(classes)
    if others:
        raise UserError(
            f"{train} and {val} have different classes: {len(others)} are in only one of them, "
            f"{min(others)} for example."
        )
    return make_dataset(train if is_train else val, numbers, IMG_EXTENSIONS)


def _tiny_imagenet(root: str, is_train: bool) -> list[tuple[str, int]]:
    """List Tiny ImageNet's images; a text file has the classes of the validation images."""
    train = os.path.join(root, "tiny-imagenet-200", "train")
    _, numbers = find_classes(train)
    if is_train:
        return make_dataset(train, numbers, IMG_EXTENSIONS)
    folder = os.path.join(root, "tiny-imagenet-200", "val")
    with open(os.path.join(folder, "val_annotations.txt")) as f:
        rows = [line.split("\t")[:2] for line in f]
    return [(os.path.join(folder, "images", x), numbers[name]) for x, name in rows]


_TORCHVISION = "python -c \"from torchvision.datasets import {0}; {0}('{{root}}', download=True)\""
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_CIFAR10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616), "image_size": 32}
_CIFAR100 = {"mean": (0.5071, 0.4867, 0.4408), "std": (0.2675, 0.2565, 0.2761), "image_size": 32}
_IMAGENET_FETCH = "download ILSVRC2012 from image-net.org into {root}/imagenet/train and /val"
_TINY = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"

DATASETS: dict[str, Source] = {
    "cifar10": Source(
        partial(_cifar, datasets.CIFAR10), 10, fetch=_TORCHVISION.format("CIFAR10"), **_CIFAR10
    ),
    "cifar100": Source(
        partial(_cifar, datasets.CIFAR100), 100, fetch=_TORCHVISION.format("CIFAR100"), **_CIFAR100
    ),
    "fashion_mnist": Source(
        _fashion_mnist,
        10,
        mean=(0.2860,) * 3,
        std=(0.3530,) * 3,
        image_size=28,
        crop_padding=2,
        fetch=FETCH_FASHION_MNIST,
        names=tuple(NAMES),
    ),
    "digits": Source(
        _digits,
        10,
        mean=(0.3053,) * 3,
        std=(0.3760,) * 3,
        image_size=8,
        crop_padding=1,
        flip=False,
    ),
    "imagenet": Source(
        partial(_folders, "imagenet"), 1000, image_size=224, fetch=_IMAGENET_FETCH, **_IMAGENET
    ),
    "tiny_imagenet": Source(
        _tiny_imagenet,
        200,
        image_size=64,
        crop_padding=8,
        is_resized=False,
        fetch=f"wget {_TINY} && unzip tiny-imagenet-200.zip -d {{root}}",
        mean=(0.4802, 0.4481, 0.3975),
        std=(0.2302, 0.2265, 0.2262),
    ),
}


def source_of(name: str) -> Source:
    """Return the image set of a name, DATASET.NAME.

    Raises:
        UserError: there is no such set.
    """
    if name not in DATASETS:
        raise UserError(f"DATASET.NAME: {name!r} is unknown; choose from {', '.join(DATASETS)}.")
    return DATASETS[name]
