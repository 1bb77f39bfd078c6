"""YOLO datasets: a text file for each image, and data.yaml or a list of class names."""

import os
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from eakd_det.data.boxes import Size, box_problem
from eakd_det.data.image_files import check_image_files
from eakd_det.utils.errors import UserError

from .source import (
    Picture,
    Source,
    check_folder,
    displayed_size,
    make_coco,
    raise_problems,
)
from .yolo_lists import Lists, read_lists

IMAGES, LABELS = "images", "labels"  # folders beside each other
BOX = 5  # values of a line with a box: class, centre and size
SCORED = 6  # the same with a score
POINTS = 7  # least number of values of a line with a polygon


def read_yolo(folder: str, *, clip: bool = False) -> Source:
    """Read a YOLO dataset; see docs/datasets.md for the layouts.

    Boxes and polygons are fractions of the image as it is displayed (EXIF). The box of a polygon is
    the smallest one around it. Images without a file, or with an empty one, have no objects.

    Args:
        folder: folder of data.yaml or of the list of names, or the path of data.yaml.
        clip: boxes may extend beyond their images.

    Returns:
        The dataset; category ids are the classes plus 1.

    Raises:
        UserError: files are faulty; each of them is named.
    """
    if folder.endswith((".yaml", ".yml")):
        folder = os.path.dirname(folder)
    folder = os.path.normpath(folder)
    check_folder(folder)
    lists = read_lists(folder)
    paths = sorted({path for of_split in lists.splits.values() for path in of_split})
    label_files = {path: find_labels(path) for path in paths}
    if not any(label_files.values()):
        raise UserError(f"{folder}: no image has a label file; the first image is {paths[0]}.")
    files = check_image_files(paths)
    problems = [file.problem for file in files if file.problem]
    pictures = {}
    for path, file in zip(paths, tqdm(files, "reading labels", delay=2, leave=False), strict=True):
        size = displayed_size(file)
        objects, found = _read_labels(label_files[path], size, lists)
        pictures[path] = Picture(path, size, [o for _, o in objects])
        boxes = [] if file.problem else [(n, o["bbox"]) for n, o in objects]
        found += [(n, box_problem(box, None if clip else size)) for n, box in boxes]
        problems += [f"{label_files[path]}, line {n}: {problem}" for n, problem in found if problem]
    raise_problems(folder, problems)
    categories = {number + 1: name for number, name in lists.names.items()}
    splits = {
        split: make_coco([pictures[path] for path in of_split], categories, folder)
        for split, of_split in lists.splits.items()
    }
    return Source(folder, splits, [*lists.notes, *_orphans(label_files)])


def find_labels(image: str) -> str | None:
    """Return the path of an image's label file, None if it has none.

    It is in the folder `labels` beside the folder `images`, or in the folder of the image.
    """
    folder, name = os.path.split(os.path.splitext(image)[0])
    parts = folder.split(os.sep)
    folders = [folder]
    if IMAGES in parts:
        place = len(parts) - 1 - parts[::-1].index(IMAGES)
        folders.insert(0, os.sep.join([*parts[:place], LABELS, *parts[place + 1 :]]))
    paths = [os.path.join(folder, f"{name}.txt") for folder in folders]
    return next(filter(os.path.isfile, paths), None)


def _read_labels(
    path: str | None, size: Size, lists: Lists
) -> tuple[list[tuple[int, dict[str, Any]]], list[tuple[int, str]]]:
    """Return the objects of a label file and its problems, each with the number of the line."""
    objects, problems = [], []
    if path:
        with open(path, encoding="utf-8-sig", errors="replace") as f:
            lines = [(number, line.split()) for number, line in enumerate(f, 1)]
        for number, values in lines:
            try:
                if values:
                    objects.append((number, _parse(values, size, lists)))
            except ValueError as error:
                problems.append((number, str(error)))
    return objects, problems


def _parse(values: list[str], size: Size, lists: Lists) -> dict[str, Any]:
    """Convert a line to a COCO annotation; a ValueError says what is wrong with it."""
    numbers = [float(value) for value in values]
    if numbers[0] not in lists.names:
        raise ValueError(f"there is no class {values[0]} in {lists.names_file}")
    if not all(-1 <= v <= 2 for v in numbers[1:BOX]):
        raise ValueError(f"{' '.join(values[1:BOX])} are no fractions of the image's size")
    annotation = {"category_id": int(numbers[0]) + 1}
    count = len(values)
    if lists.keypoint_values and count == BOX + lists.keypoint_values:
        count = BOX
    if count in (BOX, SCORED):
        x, y, width, height = (v * size[i % 2] for i, v in enumerate(numbers[1:BOX]))
        return {**annotation, "bbox": [x - width / 2, y - height / 2, width, height]}
    if count < POINTS or count % 2 == 0:
        raise ValueError(f"{count} values are neither a box (5) nor a polygon (7, 9, ...)")
    points = [v * size[i % 2] for i, v in enumerate(numbers[1:])]
    xs, ys = points[::2], points[1::2]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return {**annotation, "bbox": box, "segmentation": [points], "area": _area(xs, ys)}


def _area(xs: list[float], ys: list[float]) -> float:
    """Area of a polygon, by the shoelace formula."""
    return abs(sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs)))) / 2


def _orphans(label_files: dict[str, str | None]) -> Iterator[str]:
    """Yield a sentence about label files in folders `labels` that have no image."""
    used = {*filter(None, label_files.values())}
    folders = {folder for folder in map(os.path.dirname, used) if LABELS in folder.split(os.sep)}
    others = sorted(
        entry.path
        for folder in folders
        for entry in os.scandir(folder)
        if entry.name.endswith(".txt") and entry.name != "classes.txt" and entry.path not in used
    )
    if others:
        yield f"{len(others)} label files have no image: {others[0]}"
