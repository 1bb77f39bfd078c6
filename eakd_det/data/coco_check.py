"""Check and completion of a COCO-format file and its images before training."""

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from eakd_det.utils.errors import UserError, format_problems

from .boxes import Size, box_problem, clip_boxes, format_warnings, is_number
from .coco_file import read_coco
from .exporters import correct_displayed_sizes, enclose_rotated_boxes, remove_root_category
from .file_names import correct_file_names
from .ids import number_ids
from .image_files import ImageFile, check_image_files
from .masks import has_rle, mask_problem, remove_invalid_masks
from .orientation import rotate_upright, upright_size


def check_coco(
    json_file: str,
    image_root: str,
    *,
    masks: bool = False,
    clip: bool = False,
    again: bool = False,
) -> dict[str, Any]:
    """Read a COCO-format file, check it against its images, and complete it.

    Missing iscrowd (0), area (that of the box) and image sizes are added. If an image is stored
    sideways (EXIF) and the JSON has the stored size, its boxes and polygons are rotated upright, as
    Detectron2 reads the image. Ids are replaced if an evaluation cannot use them; see `number_ids`.

    Args:
        masks: the run trains masks: invalid ones are problems. Otherwise they are removed, and
            their boxes stay.
        clip: clip boxes to their images; see `clip_boxes`.
        again: also check images that have not changed since the last check.

    Returns:
        The COCO dict, with "notes", sentences about changes and objects that are not trained, and
        "image_root", the absolute path of the images.

    Raises:
        UserError: the data have problems, of which at most 20 are listed with image and annotation
            ids.
    """
    data = read_coco(json_file)
    notes = [*remove_root_category(data), *enclose_rotated_boxes(data["annotations"])]
    notes += correct_file_names(data["images"], image_root)
    paths = [os.path.join(image_root, image["file_name"]) for image in data["images"]]
    files = check_image_files(paths, again=again)
    notes += correct_displayed_sizes(data, files)
    sizes = {
        image["id"]: _claimed_size(image, file)
        for image, file in zip(data["images"], files, strict=True)
        if not file.problem and not _size_problem(image, file)
    }
    notes += format_warnings(data["annotations"], sizes)
    if clip:
        notes += clip_boxes(data, sizes)
    problems = [*_problems(data, files, sizes, masks)]
    if problems:
        raise UserError(
            f"{json_file} cannot be used for training, {len(problems)} problems:\n"
            f"{format_problems(problems)}" + "".join(f"\n{note}" for note in notes)
        )
    notes += _notes(data, remove_invalid_masks(data["annotations"]), masks)
    _complete(data, files)
    number_ids(data)
    data["notes"] = notes
    data["image_root"] = os.path.abspath(image_root)
    return data


def summarize(data: dict[str, Any]) -> str:
    """Format the counts of a checked COCO dict, with the annotations of each category, as text."""
    counts = Counter(a["category_id"] for a in data["annotations"])
    by_id = sorted(data["categories"], key=lambda c: c["id"])
    lines = [f"  {counts[c['id']]:>8} {c['name']}" for c in by_id]
    return "\n".join([total_counts(data), *lines])


def total_counts(data: dict[str, Any]) -> str:
    """Format the numbers of images, boxes and categories of a checked COCO dict as a line."""
    annotations = data["annotations"]
    crowds = sum(a["iscrowd"] for a in annotations)
    empty = len(data["images"]) - len({a["image_id"] for a in annotations})
    return (
        f"{len(data['images'])} images ({empty} without annotations), "
        f"{len(annotations)} boxes ({crowds} of crowds), {len(data['categories'])} categories"
    )


def _problems(
    data: dict[str, Any], files: list[ImageFile], sizes: dict[Any, Size], masks: bool
) -> Iterator[str]:
    for key, kind in [
        ("images", "image"),
        ("annotations", "annotation"),
        ("categories", "category"),
    ]:
        counts = Counter(item["id"] for item in data[key])
        yield from (f"{kind} id {i} occurs {n} times" for i, n in counts.items() if n > 1)
    for image, file in zip(data["images"], files, strict=True):
        problem = file.problem or _size_problem(image, file)
        if problem:
            yield f"image {image['id']}: {problem}"
    images = {image["id"] for image in data["images"]}
    categories = {category["id"] for category in data["categories"]}
    for annotation in data["annotations"]:
        where = f"annotation {annotation['id']} of image {annotation['image_id']}"
        if annotation["image_id"] not in images:
            yield f"{where}: the file has no such image"
        if annotation["category_id"] not in categories:
            yield f"{where}: the file has no category {annotation['category_id']!r}"
        size = sizes.get(annotation["image_id"])
        problems = [*_annotation_problems(annotation, size)]
        if masks:
            problems.append(mask_problem(annotation, size))
        yield from (f"{where}: {problem}" for problem in problems if problem)


def _annotation_problems(annotation: dict[str, Any], size: Size | None) -> Iterator[str]:
    if annotation.get("ignore"):
        yield (
            "Detectron2 does not know the key 'ignore' (X-AnyLabeling writes it for difficult "
            "objects); set iscrowd to 1 instead"
        )
    crowd, area = annotation.get("iscrowd", 0), annotation.get("area", 0)
    if crowd not in (0, 1):
        yield f"iscrowd is {crowd!r}; it must be 0 or 1"
    if not is_number(area) or area < 0:
        yield f"area is {area!r}; it must be a number of pixels, or missing"
    problem = box_problem(annotation["bbox"], size)
    if problem:
        yield f"box {annotation['bbox']} {problem}"


def _claimed_size(image: dict[str, Any], file: ImageFile) -> Size:
    """Return the size of an image in the JSON; where it is missing, that of the upright image."""
    width, height = upright_size(file)
    return image.get("width", width), image.get("height", height)


def _size_problem(image: dict[str, Any], file: ImageFile) -> str:
    stored, claimed = (file.width, file.height), _claimed_size(image, file)
    if claimed in (stored, upright_size(file)):
        return ""
    return f"{claimed[0]!r} x {claimed[1]!r} in the JSON, {stored[0]} x {stored[1]} in the file"


def _complete(data: dict[str, Any], files: list[ImageFile]) -> None:
    turns = {}
    for image, file in zip(data["images"], files, strict=True):
        upright = upright_size(file)
        claimed = (image.get("width"), image.get("height"))
        if claimed == (file.width, file.height) != upright:
            turns[image["id"]] = file
        image["width"], image["height"] = upright
    for annotation in data["annotations"]:
        annotation["iscrowd"] = int(annotation.get("iscrowd", 0))
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
        if annotation["image_id"] in turns:
            rotate_upright(annotation, turns[annotation["image_id"]])


def _notes(data: dict[str, Any], lost: int, masks: bool) -> Iterator[str]:
    """Yield sentences about the segmentations and crowds of the data.

    Args:
        lost: number of objects whose segmentation was removed.
    """
    annotations = data["annotations"]
    if lost:
        yield (
            f"{lost} of {len(annotations)} objects have an invalid segmentation; it is removed, "
            "and their boxes stay."
        )
    crowds = sum(bool(a.get("iscrowd")) for a in annotations)
    if crowds:
        yield (
            f"{crowds} of {len(annotations)} objects have iscrowd 1 (CVAT writes it for objects "
            "painted with its brush): they are not trained, and the evaluation ignores them."
        )
    if masks and has_rle(annotations):
        yield "some masks are in RLE: INPUT.MASK_FORMAT is set to bitmask."
