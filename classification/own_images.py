"""The user's own image files: a folder for each class, CSV files, and sets of torchvision.

The training set defines the classes; they are numbered in the order of their names.
"""

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from detectron2.config import CfgNode
from torchvision import datasets

from eakd_det.utils.errors import UserError, format_problems

from .image_folders import SPLITS, Samples, check_same_classes, class_folders, listed, read_folder

PREFIX = "torchvision:"
# Sets of torchvision: training split, test split, and the attribute that lists the files.
TORCHVISION = {
    "DTD": ("train", "test", "_image_files"),
    "FGVCAircraft": ("trainval", "test", "_image_files"),
    "Flowers102": ("train", "test", "_image_files"),
    "Food101": ("train", "test", "_image_files"),
    "OxfordIIITPet": ("trainval", "test", "_images"),
}
FETCH = "python -c \"from torchvision.datasets import {0}; {0}('{1}', download=True)\""
LABEL_TITLES = ("label", "labels", "class", "category")  # of a CSV file's first line


@dataclass(frozen=True)
class OwnImages:
    """An image set whose classes are taken from the data.

    Attributes:
        names: of the classes.
        read: (root, is_train) -> samples.
    """

    names: tuple[str, ...]
    read: Callable[[str, bool], Samples]


def is_own(name: str) -> bool:
    """Return True for a DATASET.NAME whose classes are taken from the data."""
    return name in ("folder", "csv") or name.startswith(PREFIX)


def own_images(data: CfgNode, root: str) -> OwnImages:
    """Return the image set of a node DATASET for which `is_own` holds.

    Args:
        root: folder of torchvision's sets.

    Raises:
        UserError: files are missing, the classes of training and validation images differ, or there
            are fewer than two.
    """
    if data.NAME.startswith(PREFIX):
        images = _torchvision(data.NAME, root)
    elif data.NAME == "csv":
        images = _csv(data)
    else:
        images = _folder(data.ROOT)
    if len(images.names) < 2:
        raise UserError(
            f"DATASET.NAME {data.NAME}: there is one class, {images.names[0]!r}; a classifier "
            "needs two or more."
        )
    return images


def _folder(root: str) -> OwnImages:
    if not root:
        raise UserError("DATASET.ROOT is empty: name the folder that holds train/ and val/.")
    try:
        names = class_folders(root)
    except FileNotFoundError as error:
        inside = sorted(os.listdir(root)) if os.path.isdir(root) else []
        found = f"it holds {listed(inside)}" if inside else "there is no such folder, or no file"
        raise UserError(
            f"DATASET.ROOT {root} must hold train/<class>/ and val/<class>/ with images; {found}."
        ) from error
    return OwnImages(names, partial(_read_root, root))


def _read_root(root: str, _: str, is_train: bool) -> Samples:
    return read_folder(root, is_train)


def _csv(data: CfgNode) -> OwnImages:
    paths = [
        given or os.path.join(data.ROOT, f"{split}.csv")
        for given, split in zip((data.TRAIN_CSV, data.VAL_CSV), SPLITS, strict=True)
    ]
    train, val = ({label for _, label in _rows(path)} for path in paths)
    is_number = all(name.isdecimal() for name in train)
    names = tuple(sorted(train, key=int if is_number else None))
    check_same_classes(paths[0], train, paths[1], val)
    return OwnImages(names, partial(_read_csv, paths, data.ROOT, names))


def _read_csv(paths: list[str], folder: str, names: tuple[str, ...], _: str, is_train: bool):
    numbers = {name: number for number, name in enumerate(names)}
    rows = _rows(paths[not is_train])
    return [(os.path.join(folder, path), numbers[label]) for path, label in rows]


def _rows(path: str) -> list[tuple[str, str]]:
    """Read path and label of each line of a CSV file; a first line with titles is skipped.

    Raises:
        UserError: there is no such file, or a line has other columns.
    """
    if not os.path.isfile(path):
        raise UserError(
            f"DATASET.NAME csv: there is no file {path!r}; DATASET.ROOT/train.csv and val.csv, or "
            "DATASET.TRAIN_CSV and VAL_CSV, are lines of path,label."
        )
    with open(path, newline="", encoding="utf-8-sig") as f:
        reader = csv.reader(f, skipinitialspace=True)
        lines = [(reader.line_num, [x.strip() for x in row]) for row in reader if row]
    if lines and len(lines[0][1]) == 2 and lines[0][1][1].lower() in LABEL_TITLES:
        lines = lines[1:]
    wrong = [f"line {number}: {','.join(row)}" for number, row in lines if not _is_pair(row)]
    if wrong or not lines:
        text = format_problems(wrong) if wrong else "  it is empty"
        raise UserError(f"{path} must have lines of path,label, separated by a comma:\n{text}")
    return [(path, label) for _, (path, label) in lines]


def _is_pair(row: list[str]) -> bool:
    return len(row) == 2 and all(row)


def _torchvision(name: str, root: str) -> OwnImages:
    own_name = name.removeprefix(PREFIX)
    if own_name not in TORCHVISION:
        known = ", ".join(PREFIX + known for known in TORCHVISION)
        raise UserError(
            f"DATASET.NAME {name}: choose from {known}. Other sets can be read as folder or csv."
        )
    images = _open(own_name, root, is_train=True)
    try:
        names = tuple(images.classes)
    except AttributeError:  # of Flowers102 in older versions of torchvision
        names = tuple(str(label) for label in sorted({*images._labels}))
    return OwnImages(names, partial(_read_torchvision, own_name))


def _read_torchvision(name: str, root: str, is_train: bool) -> Samples:
    images = _open(name, root, is_train=is_train)
    paths = vars(images)[TORCHVISION[name][2]]
    return [(str(path), label) for path, label in zip(paths, images._labels, strict=True)]


def _open(name: str, root: str, *, is_train: bool) -> datasets.VisionDataset:
    split = TORCHVISION[name][not is_train]
    try:
        return vars(datasets)[name](root, split=split)
    except (RuntimeError, FileNotFoundError) as error:
        raise UserError(
            f"{PREFIX}{name} is not in {root} (DATASET.ROOT). To get it: {FETCH.format(name, root)}"
        ) from error
