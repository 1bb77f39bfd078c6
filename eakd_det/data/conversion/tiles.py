"""Tiles of large pictures, with the parts of the objects that they show."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from eakd_det.data.boxes import box_problem
from eakd_det.data.masks import remove_invalid_masks
from eakd_det.utils.errors import UserError

from .clip import Window, clip_mask
from .split import source_of
from .tile_files import Tile, tiles_of, write_tiles

# Keys of annotations. The attributes can hold CVAT's rotation of the box, which `check_coco` has
# applied, and would apply again to a part of the box.
DROPPED = ("keypoints", "num_keypoints", "attributes")


def tile_dataset(
    data: dict[str, Any],
    image_root: str,
    output_dir: str,
    *,
    size: int,
    overlap: int,
    least_area: float = 0.4,
) -> dict[str, Any]:
    """Cut pictures into tiles, write these to a folder, and return their COCO dict.

    Tiles of the last row and column are moved into the picture, so that all have the same size. A
    picture that is no larger than a tile is copied as it is. Others are read upright (EXIF) and
    written as <picture>_<x>_<y>.jpg with quality 95, or .png if they are not JPEG files.

    Boxes, polygons and RLE masks are clipped to the tiles, and areas are scaled with the boxes.
    Crowds are kept in every tile that they reach; keypoints and attributes are removed.

    Args:
        data: COCO dict with the sizes of the displayed images, as `check_coco` returns it. It is
            not changed.
        image_root: folder of its images.
        output_dir: folder of the tiles, which is created if missing.
        size: side of a tile in pixels.
        overlap: pixels that neighbouring tiles share, at least.
        least_area: fraction of the area of a box that must be in a tile for the object to be kept.

    Returns:
        The COCO dict of the tiles. An image's "source" is the file name of its picture; "notes"
        are sentences about objects that were dropped, after those of `data`.

    Raises:
        UserError: a picture cannot be read or has another size, a box is invalid, a tile's file
            already exists, or the overlap is not less than the size.
    """
    if not 0 <= overlap < size:
        raise UserError(f"An overlap of {overlap} pixels needs tiles larger than that, not {size}.")
    tiles = [
        [*tiles_of(image["file_name"], image["width"], image["height"], size, overlap)]
        for image in data["images"]
    ]
    data = {**data, "annotations": _checked(data["annotations"])}
    write_tiles(data["images"], tiles, image_root, output_dir)
    return _tiled(data, tiles, least_area)


def _checked(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return copies of the objects without invalid masks."""
    for annotation in annotations:
        problem = box_problem(annotation["bbox"], None)
        if problem:
            raise UserError(
                f"annotation {annotation['id']} of image {annotation['image_id']}: box "
                f"{annotation['bbox']} {problem}."
            )
    copies = [dict(annotation) for annotation in annotations]
    remove_invalid_masks(copies)
    return copies


def _tiled(data: dict[str, Any], tiles: list[list[Tile]], least_area: float) -> dict[str, Any]:
    """Return the COCO dict of the tiles."""
    objects = defaultdict(list)
    for annotation in data["annotations"]:
        objects[annotation["image_id"]].append(annotation)
    images, annotations, found = [], [], set()
    cut = 0
    for image, parts in zip(data["images"], tiles, strict=True):
        for window, file_name in parts:
            new = {"id": len(images) + 1, "file_name": file_name, "source": source_of(image)}
            images.append({**new, "width": window.width, "height": window.height})
            for annotation in objects[image["id"]]:
                share = _share(annotation["bbox"], window)
                piece = _piece(annotation, window, share) if share else None
                if piece and share < least_area and not annotation.get("iscrowd"):
                    cut += 1
                elif piece:
                    piece.update(id=len(annotations) + 1, image_id=new["id"])
                    annotations.append(piece)
                    found.add(annotation["id"])
    notes = [*data.get("notes", ()), *_notes(data["annotations"], cut, len(found), least_area)]
    return {**data, "images": images, "annotations": annotations, "notes": notes}


def _notes(objects: list[dict[str, Any]], cut: int, found: int, least: float) -> Iterator[str]:
    if cut:
        yield (
            f"{cut} boxes that a tile cuts below {least:.0%} of their area are dropped from it; "
            f"{len(objects) - found} of {len(objects)} objects are in no tile."
        )
    if any("keypoints" in annotation for annotation in objects):
        yield "keypoints are removed from the tiles."


def _share(box: list[float], window: Window) -> float:
    """Return the fraction of a box's area that is inside a window."""
    x, y, width, height = box
    inside_x = min(x + width, window.x + window.width) - max(x, window.x)
    inside_y = min(y + height, window.y + window.height) - max(y, window.y)
    return max(inside_x, 0) * max(inside_y, 0) / (width * height)


def _piece(annotation: dict[str, Any], window: Window, share: float) -> dict[str, Any] | None:
    """Return the part of an object in a window, None if its mask is outside."""
    piece = {k: v for k, v in annotation.items() if k not in DROPPED}
    x, y, width, height = annotation["bbox"]
    x1, x2 = (min(max(v - window.x, 0), window.width) for v in (x, x + width))
    y1, y2 = (min(max(v - window.y, 0), window.height) for v in (y, y + height))
    piece["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    piece["area"] = annotation.get("area", width * height) * share
    if annotation.get("segmentation"):
        piece["segmentation"] = clip_mask(annotation["segmentation"], window)
        return piece if piece["segmentation"] else None
    return piece
