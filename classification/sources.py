"""Image sets by name: of torchvision, scikit-learn and Debian, drawn ones, and own files."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from eakd_det.data.datasets.fashion_mnist import FETCH_FASHION_MNIST, NAMES, read_fashion_mnist
from eakd_det.data.datasets.glyphs import CLASSES, read_glyphs
from eakd_det.utils.errors import UserError

from .augment import CROP_PADDING, CROPS, MAGNITUDES, SCALINGS
from .config import IMAGE_KEYS
from .image_folders import read_folder
from .models import IMAGENET_MEAN, IMAGENET_STD
from .own_images import is_own, own_images

NUM_TRAIN_DIGITS = 1297  # of 1797; the file is ordered by writer, so the test set has other writers


@dataclass
class Source:
    """An image set.

    Attributes:
        read: (root, is_train) -> (images, labels) for TensorImages, or samples for FolderImages.
        num_classes: number of classes.
        mean, std: of each channel, for values between 0 and 1.
        image_size: height and width of the models' input.
        crop: "padded" for `crop_and_flip`, or "resized" for crops that are scaled to `image_size`.
        crop_padding, flip: arguments of `crop_and_flip`.
        is_resized: for image files: they have any size, and are scaled to `image_size`.
        interpolation, randaugment: DATASET.INTERPOLATION and RANDAUGMENT of such files.
        fetch: command that downloads missing files, with {root}.
        names: class names; if empty, classes are shown by number.
    """

    read: Callable[[str, bool], Any]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    crop: str = "padded"
    crop_padding: int = CROP_PADDING
    flip: bool = True
    is_resized: bool = False
    interpolation: str = "bilinear"
    randaugment: int = 0
    fetch: str = ""
    names: tuple[str, ...] = ()


def _cifar(dataset: type, root: str, is_train: bool) -> tuple[Tensor, Tensor]:
    images = dataset(root, train=is_train)
    pixels = torch.from_numpy(images.data).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.tensor(images.targets)


def _fashion_mnist(root: str, is_train: bool) -> tuple[Tensor, Tensor]:
    images, labels = read_fashion_mnist(root, is_train)
    return images[:, None].repeat(1, 3, 1, 1), labels


def _glyphs100(root: str, is_train: bool) -> tuple[Tensor, Tensor]:
    images, labels = read_glyphs(root, is_train)
    return images[:, None].repeat(1, 3, 1, 1), labels


def _digits(root: str, is_train: bool) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits  # slow to import

    digits = load_digits()
    part = slice(None, NUM_TRAIN_DIGITS) if is_train else slice(NUM_TRAIN_DIGITS, None)
    images = torch.from_numpy(digits.images[part] / 16 * 255).round().to(torch.uint8)
    return images[:, None].repeat(1, 3, 1, 1), torch.from_numpy(digits.target[part])


def _imagenet(root: str, is_train: bool) -> list[tuple[str, int]]:
    return read_folder(os.path.join(root, "imagenet"), is_train)


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
_IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
_ANY_SIZE = {"is_resized": True, "crop": "resized"}
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
    "glyphs100": Source(
        _glyphs100,
        len(CLASSES),
        mean=(0.26,) * 3,
        std=(0.18,) * 3,
        image_size=24,
        crop_padding=2,
        flip=False,
        names=tuple(CLASSES),
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
        _imagenet, 1000, image_size=224, fetch=_IMAGENET_FETCH, **_ANY_SIZE, **_IMAGENET
    ),
    "tiny_imagenet": Source(
        _tiny_imagenet,
        200,
        image_size=64,
        crop_padding=8,
        fetch=f"wget {_TINY} && unzip tiny-imagenet-200.zip -d {{root}}",
        mean=(0.4802, 0.4481, 0.3975),
        std=(0.2302, 0.2265, 0.2262),
    ),
}


def data_root(data: CfgNode) -> str:
    """Return the folder of a node DATASET: ROOT, else $DETECTRON2_DATASETS, else ./datasets."""
    return data.ROOT or os.getenv("DETECTRON2_DATASETS", "datasets")


def source_of(data: CfgNode) -> Source:
    """Return the image set of a node DATASET, with its keys for images of any size.

    Raises:
        UserError: there is no such set, a key is invalid or not for this set, or files of the
            user's own images are missing (`own_images`).
    """
    if is_own(data.NAME):
        images = own_images(data, data_root(data))
        options = {"image_size": 224, "names": images.names, **_ANY_SIZE, **_IMAGENET}
        source = Source(images.read, len(images.names), **options)
    elif data.NAME in DATASETS:
        source = DATASETS[data.NAME]
    else:
        known = ", ".join([*DATASETS, "folder", "csv", "torchvision:NAME"])
        raise UserError(f"DATASET.NAME: {data.NAME!r} is unknown; choose from {known}.")
    changed = [key for key, default in IMAGE_KEYS.items() if data[key] != default]
    if changed and not source.is_resized:
        raise UserError(f"DATASET.{changed[0]}: the images of {data.NAME} are used as they are.")
    return _changed(source, data) if changed else source


def _changed(source: Source, data: CfgNode) -> Source:
    """Return a set of image files with the IMAGE_KEYS of a node DATASET."""
    for key, is_valid, wanted in [
        ("IMAGE_SIZE", data.IMAGE_SIZE >= 0, "a number of pixels"),
        ("MEAN", len(data.MEAN) in (0, 3), "three numbers"),
        ("STD", len(data.STD) in (0, 3) and all(x > 0 for x in data.STD), "three above 0"),
        ("INTERPOLATION", data.INTERPOLATION in SCALINGS, f"one of {', '.join(SCALINGS)}"),
        ("CROP", data.CROP in CROPS, f"one of {', '.join(CROPS)}"),
        ("RANDAUGMENT", 0 <= data.RANDAUGMENT < MAGNITUDES, f"from 0 to {MAGNITUDES - 1}"),
    ]:
        if not is_valid:
            raise UserError(f"DATASET.{key} {data[key]!r} must be {wanted}.")
    size = data.IMAGE_SIZE or source.image_size
    return replace(
        source,
        mean=tuple(data.MEAN) or source.mean,
        std=tuple(data.STD) or source.std,
        image_size=size,
        crop=data.CROP,
        crop_padding=size // 8,  # as CIFAR's
        flip=data.FLIP,
        interpolation=data.INTERPOLATION,
        randaugment=data.RANDAUGMENT,
    )
