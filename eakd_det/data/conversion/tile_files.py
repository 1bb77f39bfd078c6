"""Positions of the tiles of pictures, and their files."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageOps
from tqdm import tqdm

from eakd_det.utils.errors import UserError

from .clip import Window

THREADS = 4  # each holds a picture in memory
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


def tile_starts(length: int, size: int, overlap: int) -> list[int]:
    """Return the first pixels of tiles along a side of a picture; the last tile ends at its end."""
    steps = -(-max(length - size, 0) // (size - overlap))
    return [min(i * (size - overlap), max(length - size, 0)) for i in range(steps + 1)]


def tiles_of(file_name: str, width: int, height: int, size: int, overlap: int) -> Iterator[Tile]:
    """Yield the tiles of a picture, row by row; one with the name of the picture if it is small."""
    path = Path(file_name)
    name = Path(*(part for part in path.parts if part not in (path.anchor, "..")))
    if max(width, height) <= size:
        yield Tile(Window(0, 0, width, height), name.as_posix())
        return
    suffix = name.suffix if name.suffix.lower() in (".jpg", ".jpeg", ".jfif") else ".png"
    for y in tile_starts(height, size, overlap):
        for x in tile_starts(width, size, overlap):
            tile = name.with_name(f"{name.stem}_{x}_{y}{suffix}").as_posix()
            yield Tile(Window(x, y, min(size, width), min(size, height)), tile)


def write_tiles(
    images: list[dict[str, Any]], tiles: list[list[Tile]], image_root: str, output_dir: str
) -> None:
    """Write the tiles of images to a folder, in threads, with a progress bar.

    Raises:
        UserError: a picture cannot be read or has another size, or a tile's file already exists.
    """

    def write(image: dict[str, Any], parts: list[Tile]) -> None:
        path = os.path.join(image_root, image["file_name"])
        try:
            _write_picture(path, (image["width"], image["height"]), parts, output_dir)
        except FileExistsError as error:
            raise UserError(
                f"{error.filename} already exists; {path} would overwrite it: two pictures differ "
                "in their extension alone, or one is listed twice."
            ) from error

    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        written = pool.map(write, images, tiles)
        list(tqdm(written, "cutting tiles", len(images), delay=2, leave=False))


def _write_picture(path: str, size: tuple[int, int], tiles: list[Tile], output_dir: str) -> None:
    if not os.path.isfile(path):
        raise UserError(f"There is no image {path}.")
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
