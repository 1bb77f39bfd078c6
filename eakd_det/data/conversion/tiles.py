"""Tiles of large pictures, with the parts of the objects that they show."""

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageOps
from tqdm import tqdm

from eakd_det.data.boxes import box_problem
from eakd_det.data.masks import remove_invalid_masks
from eakd_det.utils.errors import UserError

from .clip import Window, clip_mask
from .split import source_of

JPEG = {"format": "JPEG", "quality": 95, "subsampling": 0}
PNG = {"format": "PNG"}
MODES = {"JPEG": ("L", "RGB"), "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16")}


class Tile(NamedTuple):
    """Part of a picture.

    Attributes:
        window: position in the picture.
        file_name: relative to the folder of the tiles.
    """

    window: Window
    file_name: str


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
    Crowds are kept in every tile that they reach; keypoints are removed.

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
        [*_tiles(image["file_name"], image["width"], image["height"], size, overlap)]
        for image in data["images"]
    ]
    data = {**data, "annotations": _checked(data["annotations"])}
    _write_all(data["images"], tiles, image_root, output_dir)
    return _tiled(data, tiles, least_area)


def tile_starts(length: int, size: int, overlap: int) -> list[int]:
    """Return the first pixels of tiles along a side of a picture; the last tile ends at its end."""
    steps = -(-max(length - size, 0) // (size - overlap))
    return [min(i * (size - overlap), max(length - size, 0)) for i in range(steps + 1)]


def _tiles(file_name: str, width: int, height: int, size: int, overlap: int) -> Iterator[Tile]:
    path = Path(file_name)
    name = Path(*(part for part in path.parts if part not in (path.anchor, "..")))
    if max(width, height) <= size:
        yield Tile(Window(0, 0, width, height), name.as_posix())
        return
    suffix = name.suffix if name.suffix.lower() in (".jpg", ".jpeg") else ".png"
    for y in tile_starts(height, size, overlap):
        for x in tile_starts(width, size, overlap):
            tile = name.with_name(f"{name.stem}_{x}_{y}{suffix}").as_posix()
            yield Tile(Window(x, y, min(size, width), min(size, height)), tile)


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
    piece = {k: v for k, v in annotation.items() if k not in ("keypoints", "num_keypoints")}
    x, y, width, height = annotation["bbox"]
    x1, x2 = (min(max(v - window.x, 0), window.width) for v in (x, x + width))
    y1, y2 = (min(max(v - window.y, 0), window.height) for v in (y, y + height))
    piece["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    piece["area"] = annotation.get("area", width * height) * share
    if annotation.get("segmentation"):
        piece["segmentation"] = clip_mask(annotation["segmentation"], window)
        return piece if piece["segmentation"] else None
    return piece


def _write_all(
    images: list[dict[str, Any]], tiles: list[list[Tile]], image_root: str, output_dir: str
) -> None:
    def write(image: dict[str, Any], parts: list[Tile]) -> None:
        path = os.path.join(image_root, image["file_name"])
        try:
            _write_tiles(path, (image["width"], image["height"]), parts, output_dir)
        except FileExistsError as error:
            raise UserError(
                f"{error.filename} already exists; {path} would overwrite it. Two pictures may "
                "differ in their extension alone: rename one."
            ) from error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        written = pool.map(write, images, tiles)
        list(tqdm(written, "cutting tiles", len(images), delay=2, leave=False))


def _write_tiles(path: str, size: tuple[int, int], tiles: list[Tile], output_dir: str) -> None:
    for _, name in tiles:
        os.makedirs(os.path.dirname(os.path.join(output_dir, name)) or ".", exist_ok=True)
    if (tiles[0].window.width, tiles[0].window.height) == size:
        with open(path, "rb") as source, open(os.path.join(output_dir, tiles[0][1]), "xb") as f:
            shutil.copyfileobj(source, f)
        return
    picture = _open_upright(path)
    if picture.size != size:
        raise UserError(f"{path} has {picture.size} pixels, its entry in the COCO file {size}.")
    for (x, y, width, height), name in tiles:
        options = PNG if name.endswith(".png") else JPEG
        with open(os.path.join(output_dir, name), "xb") as f:
            part = picture.crop((x, y, x + width, y + height))
            if part.mode not in MODES[options["format"]]:
                part = part.convert("RGB")
            part.save(f, **options)


def _open_upright(path: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image)
    except Exception as error:  # a broken image can raise almost any
        raise UserError(f"{path} cannot be read: {error}") from error
