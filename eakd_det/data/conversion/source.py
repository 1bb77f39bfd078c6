"""Datasets that are read from files of another format, and their splits."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from eakd_det.data.boxes import Size
from eakd_det.data.image_files import ImageFile
from eakd_det.utils.errors import UserError, format_problems

IMAGES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp")
SPLITS = {  # name of a folder or a list -> split
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_FOLDER = re.compile(r"(?:obj_)?([a-z]+?)\d*(?:_data)?")  # obj_train_data, train2017


@dataclass(frozen=True)
class Source:
    """A dataset as its files have it.

    Attributes:
        image_root: folder of the images.
        splits: "train", and "val" and "test" if it has them -> COCO dict.
        notes: sentences about what was left out or is not certain.
    """

    image_root: str
    splits: dict[str, dict[str, Any]]
    notes: list[str]


class Picture(NamedTuple):
    """An image file with its objects.

    Attributes:
        path: path of the file.
        size: width and height of the image to which the boxes refer.
        objects: COCO annotations without ids.
    """

    path: str
    size: Size
    objects: list[dict[str, Any]]


def make_coco(pictures: Iterable[Picture], names: dict[int, str], image_root: str) -> dict:
    """Build a COCO dict.

    Args:
        names: category id -> name.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (path, (width, height), objects) in enumerate(pictures, 1):
        file_name = os.path.relpath(path, image_root).replace(os.sep, "/")
        images.append({"id": number, "file_name": file_name, "width": width, "height": height})
        for item in objects:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **item})
    categories = [{"id": i, "name": name} for i, name in sorted(names.items())]
    return {"images": images, "annotations": annotations, "categories": categories}


def find_files(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    """Return the sorted paths of files below a folder; hidden files and folders are left out.

    Args:
        suffixes: endings of the names, in lower case.
    """
    found, seen = [], set()
    for here, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(here) in seen:  # links can form a cycle
            folders.clear()
            continue
        seen.add(os.path.realpath(here))
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__MACOSX")))
        found += [
            os.path.join(here, name)
            for name in names
            if name.lower().endswith(suffixes) and not name.startswith(".")
        ]
    return sorted(found)


def find_folder(folder: str, *names: str) -> str | None:
    """Return the path of the first subfolder that has one of the names, in any case."""
    here = {name.lower(): os.path.join(folder, name) for name in sorted(os.listdir(folder))}
    return next((here[n] for n in names if n in here and os.path.isdir(here[n])), None)


def split_by_folder(paths: list[str], root: str) -> tuple[dict[str, list[str]], list[str]]:
    """Divide files by the names of their folders (train, valid, ...); all are "train" if none has.

    Returns:
        Split -> paths, and the paths that are in no such folder while others are.
    """
    splits: dict[str, list[str]] = {}
    for path in paths:
        parts = os.path.dirname(os.path.relpath(path, root)).lower().split(os.sep)
        matches = [match[1] for match in map(_FOLDER.fullmatch, parts) if match]
        split = next((SPLITS[name] for name in matches if name in SPLITS), "")
        splits.setdefault(split, []).append(path)
    if "train" not in splits:
        return {"train": paths}, []
    return splits, splits.pop("", [])


def displayed_size(file: ImageFile) -> Size:
    """Return width and height of an image file as it is displayed (EXIF)."""
    size = file.width, file.height
    return size[::-1] if file.orientation >= 5 else size


def check_folder(folder: str) -> None:
    """Raise UserError if the folder of a dataset does not exist."""
    if not os.path.isdir(folder):
        raise UserError(f"There is no folder {folder}.")


def raise_problems(folder: str, problems: list[str]) -> None:
    """Raise UserError with the first problems of the files in a folder, if there are any."""
    if problems:
        raise UserError(
            f"{folder} cannot be converted, {len(problems)} problems:\n{format_problems(problems)}"
        )
