"""Checks a COCO-format file and its images before they are trained on, and completes it."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from eakd_det.utils.errors import UserError, listed

from .boxes import Size, box_fault, clip_boxes, doubts, is_number
from .coco_file import leave_out_root, read_coco
from .ids import number_ids
from .image_files import ImageFile, look_at_files
from .masks import drop_useless_masks, has_rle, mask_fault

# EXIF orientations that swap the sides of an image of the raw size (w, h): where (x, y) comes to.
SIDEWAYS: dict[int, Callable[[float, float, float, float], tuple[float, float]]] = {
    5: lambda x, y, w, h: (y, x),
    6: lambda x, y, w, h: (h - y, x),
    7: lambda x, y, w, h: (h - y, w - x),
    8: lambda x, y, w, h: (y, w - x),
}


def check_coco(
    json_file: str,
    image_root: str,
    *,
    masks: bool = False,
    clip: bool = False,
    again: bool = False,
) -> dict[str, Any]:
    """Read a COCO-format file, check it against its images, and complete it.

    Completed are missing iscrowd (0), area (the box's) and image sizes. Where a file is stored
    sideways (EXIF) and the JSON has the stored size, boxes and polygons are turned upright, as
    Detectron2 reads the image. Ids become what every evaluation takes; see `number_ids`.

    Args:
        masks: whether masks are trained. If not, those that are none are left out, and their boxes
            stay; else they are faults.
        clip: cut boxes off at the edges of their images; see `clip_boxes`.
        again: look also at images that have not changed since.

    Returns:
        The COCO dict, with "notes", sentences about what is changed or does not train, and
        "image_root", the absolute path of the images.

    Raises:
        UserError: what is wrong, with image and annotation ids, at most 20 of them.
    """
    data = read_coco(json_file)
    notes = [*leave_out_root(data)]
    paths = [_find(image, image_root) for image in data["images"]]
    files = look_at_files(paths, again=again)
    sizes = {
        image["id"]: (image.get("width", file.width), image.get("height", file.height))
        for image, file in zip(data["images"], files, strict=True)
        if not file.fault and not _size_fault(image, file)
    }
    notes += doubts(data["annotations"], sizes)
    if clip:
        notes += clip_boxes(data, sizes)
    problems = [*_problems(data, files, sizes, masks)]
    if problems:
        raise UserError(
            f"{json_file} cannot be trained on as it is, {len(problems)} faults:\n"
            f"{listed(problems)}" + "".join(f"\n{note}" for note in notes)
        )
    notes += _notes(data, drop_useless_masks(data["annotations"]), masks)
    _complete(data, files)
    number_ids(data)
    data["notes"] = notes
    data["image_root"] = os.path.abspath(image_root)
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


def _find(image: dict[str, Any], image_root: str) -> str:
    """Path of an image; back-slashes that Windows wrote into its name become slashes."""
    path = os.path.join(image_root, image["file_name"])
    if "\\" in image["file_name"] and not os.path.isfile(path):
        image["file_name"] = image["file_name"].replace("\\", "/")
        path = os.path.join(image_root, image["file_name"])
    return path


def _problems(
    data: dict[str, Any], files: list[ImageFile], sizes: dict[Any, Size], masks: bool
) -> Iterator[str]:
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
    images = {image["id"] for image in data["images"]}
    categories = {category["id"] for category in data["categories"]}
    for annotation in data["annotations"]:
        where = f"annotation {annotation['id']} of image {annotation['image_id']}"
        if annotation["image_id"] not in images:
            yield f"{where}: there is no such image"
        if annotation["category_id"] not in categories:
            yield f"{where}: there is no category {annotation['category_id']}"
        size = sizes.get(annotation["image_id"])
        faults = _annotation_faults(annotation, size)
        if masks:
            faults = [*faults, mask_fault(annotation, size)]
        yield from (f"{where}: {fault}" for fault in faults if fault)


def _annotation_faults(annotation: dict[str, Any], size: Size | None) -> Iterator[str]:
    if annotation.get("ignore"):
        yield "'ignore' is no key of Detectron2's; say iscrowd 1 in place of it"
    crowd, area = annotation.get("iscrowd", 0), annotation.get("area", 0)
    if crowd not in (0, 1):
        yield f"iscrowd is {crowd!r}; it must be 0 or 1"
    if not is_number(area) or area < 0:
        yield f"area is {area!r}; it must be a number of pixels, or missing"
    fault = box_fault(annotation["bbox"], size)
    if fault:
        yield f"box {annotation['bbox']} {fault}"


def _size_fault(image: dict[str, Any], file: ImageFile) -> str:
    stored = (file.width, file.height)
    claimed = (image.get("width", file.width), image.get("height", file.height))
    possible = {stored, stored[::-1]} if file.orientation in SIDEWAYS else {stored}
    if claimed in possible:
        return ""
    return f"{claimed[0]!r} x {claimed[1]!r} in the JSON, {stored[0]} x {stored[1]} in the file"


def _complete(data: dict[str, Any], files: list[ImageFile]) -> None:
    turns = {}
    for image, file in zip(data["images"], files, strict=True):
        sideways = file.orientation in SIDEWAYS
        upright = (file.height, file.width) if sideways else (file.width, file.height)
        claimed = (image.get("width"), image.get("height"))
        if sideways and claimed == (file.width, file.height) != upright:
            turns[image["id"]] = (SIDEWAYS[file.orientation], file)
        image["width"], image["height"] = upright
    for annotation in data["annotations"]:
        annotation["iscrowd"] = int(annotation.get("iscrowd", 0))
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
        if annotation["image_id"] in turns:
            _turn(annotation, *turns[annotation["image_id"]])


def _turn(annotation: dict[str, Any], move: Callable, file: ImageFile) -> None:
    x, y, width, height = annotation["bbox"]
    corners = [move(*p, file.width, file.height) for p in [(x, y), (x + width, y + height)]]
    (x1, x2), (y1, y2) = map(sorted, zip(*corners, strict=True))
    annotation["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    if isinstance(annotation.get("segmentation"), list):
        annotation["segmentation"] = [
            [
                v
                for p in zip(polygon[::2], polygon[1::2], strict=True)
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


def _notes(data: dict[str, Any], lost: int, masks: bool) -> Iterator[str]:
    """
    Args:
        lost: objects that have lost their segmentation.
    """
    annotations = data["annotations"]
    if lost:
        yield (
            f"{lost} of {len(annotations)} objects have a segmentation that is no mask; it is left "
            "out, and their boxes stay."
        )
    crowds = sum(bool(a.get("iscrowd")) for a in annotations)
    if crowds:
        yield (
            f"{crowds} of {len(annotations)} objects have iscrowd 1 (as CVAT writes what its brush "
            "paints): they do not train, and the evaluation ignores them."
        )
    if masks and has_rle(annotations):
        yield "some masks are in RLE, which makes INPUT.MASK_FORMAT bitmask."
