"""Class names and splits of YOLO datasets."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from eakd_det.utils.errors import UserError

from .source import IMAGES, find_files, split_by_folder

KEYS = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}  # of data.yaml


@dataclass(frozen=True)
class Lists:
    """Class names and images of a YOLO dataset.

    Attributes:
        names: class -> name.
        names_file: file that has them.
        splits: "train", "val", "test" -> paths of images, for those that exist.
        keypoint_values: number of values that follow the box of an object with keypoints; 0 if
            the dataset has none.
        notes: sentences about images that are left out.
    """

    names: dict[int, str]
    names_file: str
    splits: dict[str, list[str]]
    keypoint_values: int
    notes: list[str]


def read_lists(folder: str) -> Lists:
    """Read data.yaml, or classes.txt or *.names, and find the images.

    The splits are those of data.yaml, otherwise those of folders that are named train, valid, ...

    Raises:
        UserError: there are no names or no training images.
    """
    path = _find_yaml(folder)
    data = _load(path) if path else {}
    names, names_file = (_names(data["names"], path), path) if path else _read_names(folder)
    notes: list[str] = []
    splits = {}
    for split, keys in KEYS.items():
        entries = next((data[key] for key in keys if data.get(key)), [])
        entries = [entries] if isinstance(entries, str) else entries
        found = [*_find_images(entries, path, str(data.get("path") or ""), notes)]
        if found:
            splits[split] = sorted({*found})
    if "train" not in splits:
        splits, others = split_by_folder(find_files(folder, IMAGES), folder)
        if others:
            notes.append(
                f"{len(others)} images beside the folders {', '.join(splits)} are left out: "
                f"{others[0]}"
            )
    if not splits["train"]:
        raise UserError(f"{folder} has no images.")
    return Lists(names, names_file, splits, _keypoint_values(data, path), notes)


def _find_yaml(folder: str) -> str:
    """Return the path of the only YAML file of the folder with class names, empty if none has."""
    files = sorted(name for name in os.listdir(folder) if name.endswith((".yaml", ".yml")))
    files = ["data.yaml"] if "data.yaml" in files else files
    found = [path for path in (os.path.join(folder, f) for f in files) if "names" in _load(path)]
    if len(found) > 1:
        raise UserError(f"Several files of {folder} have class names: {', '.join(found)}.")
    return found[0] if found else ""


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8-sig") as f:
            data = yaml.safe_load(f)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} is not a YAML file of keys and values.")
    return data


def _names(value: Any, path: str) -> dict[int, str]:
    names = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(names, dict) or not names:
        raise UserError(f"{path}: names must be a list, or class numbers with their names.")
    for number, name in names.items():
        if type(number) is not int or number < 0 or not isinstance(name, str | int | float):
            raise UserError(f"{path}: class {number!r} of names is {name!r}, not number and text.")
    return {number: str(name) for number, name in names.items()}


def _read_names(folder: str) -> tuple[dict[int, str], str]:
    """Return the names of classes.txt or *.names, and the path of that file."""
    found = find_files(folder, ("classes.txt", ".names"))
    contents = {}
    for path in found:
        with open(path, encoding="utf-8-sig") as f:
            contents[tuple(line.strip() for line in f if line.strip())] = path
    if len(contents) != 1:
        problem = f"different names in {', '.join(found)}" if found else "no names of the classes"
        raise UserError(f"{folder} has {problem}: they are in data.yaml, classes.txt or obj.names.")
    [(names, path)] = contents.items()
    return dict(enumerate(names)), path


def _find_images(entries: list[Any], yaml_file: str, base: str, notes: list[str]) -> Iterator[str]:
    """Yield the paths of the images that a key of data.yaml names: folders, or lists of paths."""
    here = os.path.dirname(yaml_file)
    for entry in entries:
        path = _existing(str(entry), [os.path.join(here, base), here])
        if path is None:
            notes.append(f"{yaml_file} names {entry}, which does not exist.")
        elif os.path.isdir(path):
            yield from find_files(path, IMAGES)
        else:
            yield from _listed(path, here)


def _listed(path: str, here: str) -> Iterator[str]:
    with open(path, encoding="utf-8-sig") as f:
        for number, line in enumerate(f, 1):
            if line.strip():
                image = _existing(line.strip(), [os.path.dirname(path), here])
                if image is None:
                    raise UserError(f"{path}, line {number}: there is no image {line.strip()}.")
                yield image


def _existing(entry: str, bases: list[str]) -> str | None:
    """Return the path of a file or folder that may have been written on another machine.

    Roboflow's data.yaml has ../train/images for train/images, and `path` and lists often begin with
    folders of the machine where the dataset was made.
    """
    parts = [part for part in entry.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    for base in bases:
        if os.path.exists(os.path.join(base, entry)):
            return os.path.normpath(os.path.join(base, entry))
    for start in range(max(len(parts) - 1, 1)):  # a lone `images` can be of another split
        for base in bases:
            path = os.path.join(base, *parts[start:])
            if os.path.exists(path):
                return path
    return None


def _keypoint_values(data: dict[str, Any], path: str) -> int:
    shape = data.get("kpt_shape", [0, 0])
    if not isinstance(shape, list) or len(shape) != 2 or not all(type(n) is int for n in shape):
        raise UserError(f"{path}: kpt_shape is {shape!r}; it must be two numbers.")
    return shape[0] * shape[1]
