"""Image files in a folder for each class."""

import logging
import os
from collections.abc import Sequence

from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from eakd_det.utils.errors import MOST_SHOWN, UserError, format_problems

SPLITS = ("train", "val")

Samples = list[tuple[str, int]]  # path and label of each image

logger = logging.getLogger(__name__)


def check_same_classes(train: str, train_names: Sequence[str], val: str, val_names: Sequence[str]):
    """Raise UserError if training and validation images have different classes.

    Args:
        train, val: path of each split, for the message.
    """
    parts = [(train, {*train_names} - {*val_names}), (val, {*val_names} - {*train_names})]
    lines = [f"only in {path}: {listed(sorted(names))}" for path, names in parts if names]
    if lines:
        raise UserError(f"{train} and {val} have different classes:\n{format_problems(lines)}")


def class_folders(root: str) -> tuple[str, ...]:
    """Return the names of the class folders in ROOT/train, which are those in ROOT/val.

    Raises:
        FileNotFoundError: a folder is missing or has no folders.
        UserError: the classes differ.
    """
    train, val = (os.path.join(root, split) for split in SPLITS)
    names = find_classes(train)[0]
    check_same_classes(train, names, val, find_classes(val)[0])
    return tuple(names)


def read_folder(root: str, is_train: bool) -> Samples:
    """List the images of ROOT/train or ROOT/val, in which each folder is a class.

    Files that are no images by their names are left out with a warning.

    Raises:
        FileNotFoundError: see `class_folders`.
        UserError: the classes differ, or a class has no images.
    """
    names = class_folders(root)
    folder = os.path.join(root, SPLITS[not is_train])
    numbers = {name: number for number, name in enumerate(names)}
    samples = make_dataset(folder, numbers, IMG_EXTENSIONS, allow_empty=True)
    others = sorted(_files(folder) - {path for path, _ in samples})
    kinds = ", ".join(IMG_EXTENSIONS)
    empty = sorted(set(numbers.values()) - {label for _, label in samples})
    if empty:
        lines = [os.path.join(folder, names[label]) for label in empty]
        raise UserError(
            f"Class folders without images ({kinds}): {len(empty)}\n{format_problems(lines)}\n"
            "Remove these folders from train and val, or add images."
        )
    if others:
        logger.warning(
            "Left out of %s are files that are no images (%s): %d\n%s",
            *(folder, kinds, len(others), format_problems(others)),
        )
    return samples


def _files(folder: str) -> set[str]:
    """Return the paths of all files in a folder and those below, without hidden ones."""
    return {
        os.path.join(place, name)
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if not name.startswith(".")
    }


def listed(names: Sequence[str]) -> str:
    """Return names as text, at most MOST_SHOWN of them."""
    more = len(names) - MOST_SHOWN
    return ", ".join(names[:MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")
