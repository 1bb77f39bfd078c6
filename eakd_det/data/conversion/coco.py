"""COCO files of a folder and the folders of their images, as exporters arrange them."""

import os
import re
from typing import Any

from eakd_det.data.coco_check import check_coco
from eakd_det.data.coco_file import read_coco
from eakd_det.utils.errors import UserError

from .source import SPLITS, Source, check_folder

ROBOFLOW = "_annotations.coco.json"
INSTANCES = "instances_"  # prefix of the objects' files of COCO and CVAT


def read_coco_source(path: str, image_root: str | None = None, *, clip: bool = False) -> Source:
    """Read a COCO file, or the files of a folder.

    Args:
        path: JSON file, or a folder with JSON files in itself or in `annotations`, or with the
            files _annotations.coco.json of Roboflow in its subfolders.
        image_root: folder of the images; for a folder found beside the files by default.
        clip: clip boxes to their images.

    Returns:
        The dataset, checked and completed; see `check_coco`.

    Raises:
        UserError: files are missing or faulty.
    """
    if os.path.isfile(path):
        if not image_root:
            raise UserError(f"--images FOLDER is required: the folder of the images of {path}.")
        data = _check(path, image_root, clip)
        return Source(image_root, {"train": data}, data.pop("notes"))
    check_folder(path)
    splits, notes = {}, []
    for split, json_file in _find_splits(path).items():
        folder = _find_images(json_file, split, path, image_root)
        data = _check(json_file, folder, clip)
        notes += data.pop("notes")
        for image in data["images"]:
            name = os.path.join(os.path.relpath(folder, path), image["file_name"])
            image["file_name"] = os.path.normpath(name).replace(os.sep, "/")
        splits[split] = data
    classes = {
        split: [(c["id"], c["name"]) for c in d["categories"]] for split, d in splits.items()
    }
    if any(sorted(of_split) != sorted(classes["train"]) for of_split in classes.values()):
        raise UserError(f"{path}: the splits have different categories: {classes}.")
    return Source(path, splits, notes)


def _check(json_file: str, image_root: str, clip: bool) -> dict[str, Any]:
    """Check a file; the result can be checked again without being changed twice."""
    data = check_coco(json_file, image_root, clip=clip)
    for annotation in data["annotations"]:
        annotation.pop("attributes", None)  # CVAT's rotation of the box, which has been applied
    return data


def _find_splits(folder: str) -> dict[str, str]:
    """Return split -> JSON file."""
    below = os.path.join(folder, "annotations")
    roboflow = [os.path.join(folder, name, ROBOFLOW) for name in sorted(os.listdir(folder))]
    files = [*_json_files(below), *_json_files(folder), *filter(os.path.isfile, roboflow)]
    files = [f for f in files if os.path.basename(f).startswith(INSTANCES)] or files
    if not files:
        raise UserError(f"{folder} has no COCO file in itself, in annotations or in train.")
    splits: dict[str, str] = {}
    for path in files:
        words = re.split(r"[^a-z]+", os.path.relpath(path, folder).lower())
        split = next((SPLITS[word] for word in words if word in SPLITS), "")
        split = split or ("train" if len(files) == 1 else os.path.basename(path))
        if split in splits or split not in SPLITS.values():
            raise UserError(
                f"It is not clear which of {', '.join(files)} are training and validation data: "
                "name one file, with --images."
            )
        splits[split] = path
    if "train" not in splits:
        raise UserError(f"{folder} has no COCO file of training data, only {', '.join(files)}.")
    return splits


def _find_images(json_file: str, split: str, folder: str, image_root: str | None) -> str:
    """Return the folder that has the first image of a file."""
    first = read_coco(json_file)["images"][0]["file_name"].replace("\\", "/")
    name = os.path.splitext(os.path.basename(json_file))[0].removeprefix(INSTANCES)
    parents = [image_root] if image_root else [os.path.join(folder, "images"), folder]
    folders = [os.path.join(p, sub) for p in parents for sub in (name, split, "")]
    folders = [*([] if image_root else [os.path.dirname(json_file)]), *folders]
    for place in folders:
        if os.path.isfile(os.path.join(place, first)):
            return os.path.normpath(place)
    if image_root:  # the check finds files under other names, or lists those that are missing
        return image_root
    raise UserError(
        f"{json_file}: its image {first} is in none of {', '.join(folders)}: name the folder with "
        "--images."
    )


def _json_files(folder: str) -> list[str]:
    if not os.path.isdir(folder):
        return []
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if _is_json(name)]


def _is_json(name: str) -> bool:
    return name.lower().endswith(".json") and not name.startswith(".")


def pool(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Join COCO dicts of the same categories; images of an earlier one are not taken again."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for data in parts:
        numbers = {}
        known = {image["file_name"] for image in images}
        for image in data["images"]:
            if image["file_name"] not in known:
                numbers[image["id"]] = len(images) + 1
                images.append({**image, "id": len(images) + 1})
        for annotation in data["annotations"]:
            if annotation["image_id"] in numbers:
                new = {"id": len(annotations) + 1, "image_id": numbers[annotation["image_id"]]}
                annotations.append({**annotation, **new})
    return {**parts[0], "images": images, "annotations": annotations}
