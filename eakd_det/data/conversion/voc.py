"""Pascal VOC datasets: an XML file for each image (M. Everingham et al., 2010)."""

import os
from collections.abc import Iterator

from tqdm import tqdm

from eakd_det.data.boxes import Size, box_problem
from eakd_det.data.image_files import ImageFile, check_image_files
from eakd_det.utils.errors import UserError

from .source import (
    Picture,
    Source,
    check_folder,
    displayed_size,
    find_files,
    find_folder,
    make_coco,
    raise_problems,
    split_by_folder,
)
from .voc_files import ImageFinder, Labels, read_labels, read_lists


def read_voc(folder: str, *, clip: bool = False) -> Source:
    """Read a Pascal VOC dataset; see docs/datasets.md for the layouts.

    Corners are those of the VOC devkit and of Detectron2's loader, pixel numbers from 1 with both
    ends included: x = xmin - 1 and width = xmax - xmin + 1.

    Args:
        clip: boxes may extend beyond their images.

    Returns:
        The dataset. Annotations have the keys "difficult" and "truncated".

    Raises:
        UserError: files are faulty; each of them is named.
    """
    folder = os.path.normpath(folder)
    check_folder(folder)
    root = find_folder(folder, "annotations") or folder
    finder = ImageFinder(find_folder(folder, "jpegimages", "images") or folder, root)
    labels, images, problems, notes = _read_all(root, finder)
    files = check_image_files(images)
    problems += [file.problem for file in files if file.problem]
    sizes = [_size(item, file) for item, file in zip(labels, files, strict=True)]
    known = [None if clip or f.problem else size for f, size in zip(files, sizes, strict=True)]
    problems += _box_problems(labels, known)
    raise_problems(folder, problems)
    categories = _number_classes(labels)
    if not categories:
        raise UserError(f"{root}: no XML file has an object.")
    notes += [*_notes(labels, files)]
    pictures = {
        item.path: Picture(image, size, item.objects)
        for item, image, size in zip(labels, images, sizes, strict=True)
    }
    splits = {
        split: make_coco([pictures[path] for path in paths], categories, folder)
        for split, paths in _splits(folder, root, [*pictures], notes).items()
    }
    return Source(folder, splits, notes)


def _read_all(
    root: str, finder: ImageFinder
) -> tuple[list[Labels], list[str], list[str], list[str]]:
    """Return the content of the XML files, the paths of their images, problems and notes."""
    labels, images, problems, others = [], [], [], []
    for path in tqdm(find_files(root, (".xml",)), "reading XML files", delay=2, leave=False):
        try:
            item = read_labels(path)
            if isinstance(item, str):
                others.append(f"{path} has the root <{item}>")
                continue
            images.append(finder.find(item))
            labels.append(item)
        except UserError as error:
            problems.append(str(error))
    if not labels and not problems:
        found = f" ({others[0]})" if others else ""
        raise UserError(
            f"{root} has no XML files of Pascal VOC, whose root is <annotation>{found}. Export the "
            "dataset as Pascal VOC, COCO or YOLO."
        )
    unused = sorted({*finder.paths} - {*images})
    notes = []
    if others:
        notes.append(f"{len(others)} other XML files are skipped: {others[0]}.")
    if unused and not problems:
        notes.append(
            f"{len(unused)} images without an XML file are left out (the first: {unused[0]}); that "
            "of an image without objects has no <object>."
        )
    return labels, images, problems, notes


def _size(labels: Labels, file: ImageFile) -> Size:
    """Return the size to which the boxes refer: the file's as stored, or as displayed (EXIF)."""
    stored = file.width, file.height
    return stored if labels.size == stored else displayed_size(file)


def _box_problems(labels: list[Labels], sizes: list[Size | None]) -> Iterator[str]:
    for item, size in zip(labels, sizes, strict=True):
        for number, o in enumerate(item.objects, 1):
            problem = box_problem(o["bbox"], size)
            if problem:
                where = f"{item.path}: object {number} ({o['category_id']})"
                yield f"{where}: box {o['bbox']} (COCO) {problem}"


def _number_classes(labels: list[Labels]) -> dict[int, str]:
    """Replace the names of classes by ids from 1, in alphabetical order; return id -> name."""
    names = sorted({o["category_id"] for item in labels for o in item.objects})
    ids = {name: number for number, name in enumerate(names, 1)}
    for item in labels:
        for o in item.objects:
            o["category_id"] = ids[o["category_id"]]
    return {number: name for name, number in ids.items()}


def _notes(labels: list[Labels], files: list[ImageFile]) -> Iterator[str]:
    missing = [item.path for item in labels if item.size is None]
    if missing:
        yield f"{len(missing)} XML files have no size, which is that of the image: {missing[0]}"
    wrong = [
        f"{item.path} has {item.size}, its image {displayed_size(file)}"
        for item, file in zip(labels, files, strict=True)
        if item.size and {*item.size} != {file.width, file.height}
    ]
    if wrong:
        yield (
            f"{len(wrong)} XML files have another size than their image; the image's is used, and "
            f"boxes are not scaled: {wrong[0]}"
        )
    from_0 = [item.path for item in labels if item.below_1]
    if from_0:
        number = sum(item.below_1 for item in labels)
        yield (
            f"{number} corners are less than 1 (the first in {from_0[0]}): the program that wrote "
            "them may count pixels from 0. VOC's count from 1, as they are read here, which moves "
            "such boxes by at most a pixel."
        )


def _splits(folder: str, root: str, paths: list[str], notes: list[str]) -> dict[str, list[str]]:
    """Divide XML files by the lists of ImageSets/Main, or else by the names of their folders."""
    lists = read_lists(os.path.join(folder, "ImageSets", "Main"))
    if "train" not in lists:
        splits, others = split_by_folder(paths, folder)
        if others:
            notes.append(
                f"{len(others)} XML files beside the folders {', '.join(splits)} are left out: "
                f"{others[0]}"
            )
        return splits
    of_name = {os.path.relpath(p, root)[: -len(".xml")].replace(os.sep, "/"): p for p in paths}
    found = {split: sorted(of_name[n] for n in lists[split] & {*of_name}) for split in lists}
    for split, names in lists.items():
        if names - {*of_name}:
            notes.append(
                f"{len(names - {*of_name})} of {len(names)} names in the list {split} of "
                f"ImageSets/Main have no XML file: {min(names - {*of_name})}"
            )
    unlisted = {*of_name} - set().union(*lists.values())
    if unlisted:
        notes.append(
            f"{len(unlisted)} XML files are in no list of ImageSets/Main and left out: "
            f"{of_name[min(unlisted)]}"
        )
    if not found["train"]:
        raise UserError(f"{folder}: the lists of ImageSets/Main name no training image.")
    return {split: of_split for split, of_split in found.items() if of_split}
