"""Checks a COCO-format file and its images before they are trained on, and completes it."""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image
from tqdm import tqdm

from ..errors import UserError

MOST_SHOWN = 20
SLACK = 1.0  # pixels that a box may reach over the image's edge, as rounding makes it

# EXIF orientations that swap the sides of an image of the raw size (w, h): where (x, y) comes to.
SIDEWAYS: dict[int, Callable[[float, float, float, float], tuple[float, float]]] = {
    5: lambda x, y, w, h: (y, x),
    6: lambda x, y, w, h: (h - y, x),
    7: lambda x, y, w, h: (h - y, w - x),
    8: lambda x, y, w, h: (y, w - x),
}


@dataclass(frozen=True)
class _File:
    """What an image file says of itself: its stored size and EXIF orientation, or a fault."""

    width: int = 0
    height: int = 0
    orientation: int = 1
    fault: str = ""


def check_coco(json_file: str, image_root: str) -> dict[str, Any]:
    """Read a COCO-format file, check it against its images, and complete it.

    Completed are missing iscrowd (0), area (the box's) and image sizes. Where a file is stored
    sideways (EXIF) and the JSON has the stored size, boxes and polygons are turned upright, as
    Detectron2 reads the image.

    Returns:
        The COCO dict.

    Raises:
        UserError: what is wrong, with image and annotation ids, at most 20 of them.
    """
    data = _read(json_file)
    files = _look_at_files(data["images"], image_root)
    problems = [*_problems(data, files)]
    if problems:
        more = len(problems) - MOST_SHOWN
        shown = problems[:MOST_SHOWN] + ([f"and {more} more"] if more > 0 else [])
        text = "\n".join(f"  {problem}" for problem in shown)
        raise UserError(
            f"{json_file} cannot be trained on as it is, {len(problems)} faults:\n{text}"
        )
    _complete(data, files)
    return data


def summarize(data: dict[str, Any]) -> str:
    """Counts of a checked COCO dict, and the annotations of each category, as text."""
    annotations = data["annotations"]
    crowds = sum(a["iscrowd"] for a in annotations)
    empty = len(data["images"]) - len({a["image_id"] for a in annotations})
    lines = [
        f"{len(data['images'])} images ({empty} without annotations), "
        f"{len(annotations)} boxes ({crowds} of crowds), {len(data['categories'])} categories"
    ]
    counts = Counter(a["category_id"] for a in annotations)
    by_id = sorted(data["categories"], key=lambda c: c["id"])
    lines += [f"  {counts[c['id']]:>8} {c['name']}" for c in by_id]
    return "\n".join(lines)


def _read(json_file: str) -> dict[str, Any]:
    try:
        with open(json_file, encoding="utf-8") as f:
            data = json.load(f)
    except OSError as error:
        raise UserError(f"{json_file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{json_file} is no JSON: {error}.") from error
    for key, fields in [
        ("images", ("id", "file_name")),
        ("annotations", ("id", "image_id", "category_id", "bbox")),
        ("categories", ("id", "name")),
    ]:
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise UserError(f"{json_file} is no COCO file of objects: it has no list {key!r}.")
        for item in data[key]:
            missing = [field for field in fields if field not in item]
            if missing:
                raise UserError(f"{json_file}: one of {key} lacks {', '.join(missing)}: {item}")
    for key in ("images", "categories"):
        if not data[key]:
            raise UserError(f"{json_file} has no {key}.")
    return data


def _look_at_files(images: list[dict[str, Any]], image_root: str) -> list[_File]:
    paths = [os.path.join(image_root, image["file_name"]) for image in images]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = pool.map(_look_at_file, paths)
        return list(tqdm(looks, "checking images", len(paths), delay=2, leave=False))


def _look_at_file(path: str) -> _File:
    if not os.path.isfile(path):
        return _File(fault=f"no file {path}")
    try:
        with Image.open(path) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            width, height = image.size
            image.draft("L", (1, 1))  # a JPEG is decoded at an eighth: enough to find it cut off
            image.load()
    except Exception as error:  # of a broken image, almost any
        return _File(fault=f"{path} cannot be read: {error}")
    return _File(width, height, orientation)


def _problems(data: dict[str, Any], files: list[_File]) -> Iterator[str]:
    for key, kind in [
        ("images", "image"),
        ("annotations", "annotation"),
        ("categories", "category"),
    ]:
        counts = Counter(item["id"] for item in data[key])
        yield from (f"{kind} id {i} is there {n} times" for i, n in counts.items() if n > 1)
    for image, file in zip(data["images"], files, strict=True):
        fault = file.fault or _size_fault(image, file)
        if fault:
            yield f"image {image['id']}: {fault}"
    sizes = {
        image["id"]: (image.get("width", file.width), image.get("height", file.height))
        for image, file in zip(data["images"], files, strict=True)
        if not file.fault
    }
    images = {image["id"] for image in data["images"]}
    categories = {category["id"] for category in data["categories"]}
    for annotation in data["annotations"]:
        where = f"annotation {annotation['id']} of image {annotation['image_id']}"
        if annotation["image_id"] not in images:
            yield f"{where}: there is no such image"
        if annotation["category_id"] not in categories:
            yield f"{where}: there is no category {annotation['category_id']}"
        if annotation.get("ignore"):
            yield f"{where}: 'ignore' is no key of Detectron2's; say iscrowd 1 in place of it"
        fault = _box_fault(annotation["bbox"], sizes.get(annotation["image_id"]))
        if fault:
            yield f"{where}: box {annotation['bbox']} {fault}"


def _size_fault(image: dict[str, Any], file: _File) -> str:
    stored = (file.width, file.height)
    claimed = (image.get("width", file.width), image.get("height", file.height))
    possible = {stored, stored[::-1]} if file.orientation in SIDEWAYS else {stored}
    if claimed in possible:
        return ""
    return f"{claimed[0]} x {claimed[1]} in the JSON, {stored[0]} x {stored[1]} in the file"


def _box_fault(box: Any, size: tuple[int, int] | None) -> str:
    if not isinstance(box, list) or len(box) != 4:
        return "is no list of x, y, width, height"
    if not all(isinstance(v, int | float) and math.isfinite(v) for v in box):
        return "has a value that is no finite number"
    x, y, width, height = box
    if width < 0 or height < 0:
        return "is inverted: width and height must be positive (is it x1, y1, x2, y2?)"
    if width == 0 or height == 0:
        return "has no size"
    if size is not None and (
        min(x, y) < -SLACK or x + width > size[0] + SLACK or y + height > size[1] + SLACK
    ):
        return f"reaches out of the image of {size[0]} x {size[1]}"
    return ""


def _complete(data: dict[str, Any], files: list[_File]) -> None:
    turns = {}
    for image, file in zip(data["images"], files, strict=True):
        sideways = file.orientation in SIDEWAYS
        upright = (file.height, file.width) if sideways else (file.width, file.height)
        claimed = (image.get("width"), image.get("height"))
        if sideways and claimed == (file.width, file.height) != upright:
            turns[image["id"]] = (SIDEWAYS[file.orientation], file)
        image["width"], image["height"] = upright
    for annotation in data["annotations"]:
        annotation.setdefault("iscrowd", 0)
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
        if annotation["image_id"] in turns:
            _turn(annotation, *turns[annotation["image_id"]])


def _turn(annotation: dict[str, Any], move: Callable, file: _File) -> None:
    x, y, width, height = annotation["bbox"]
    corners = [move(*p, file.width, file.height) for p in [(x, y), (x + width, y + height)]]
    (x1, x2), (y1, y2) = map(sorted, zip(*corners, strict=True))
    annotation["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    if isinstance(annotation.get("segmentation"), list):  # odd lengths Detectron2 leaves out
        annotation["segmentation"] = [
            [
                v
                for p in zip(polygon[::2], polygon[1::2], strict=False)
                for v in move(*p, file.width, file.height)
            ]
            for polygon in annotation["segmentation"]
        ]
    elif annotation.get("segmentation") or annotation.get("keypoints"):
        raise UserError(
            f"annotation {annotation['id']} of image {annotation['image_id']}: the file is stored "
            "sideways (EXIF), and a mask in RLE or keypoints cannot be turned: save the image "
            "upright."
        )
