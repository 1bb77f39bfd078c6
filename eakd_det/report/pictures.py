"""Pictures and figures that lie in the folders of runs, made small enough for a page."""

import io
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from ..errors import UserError
from .charts import data_uri

WIDTH = 1200  # pixels at most
QUALITY = 85  # of JPEG
MOST_PICTURES = 4  # of a run
TITLES = {  # of analyses; another is called as its file
    "ap_segments": "AP over fifths of the objects, by entropy",
    "entropy_segments": "accuracy of teacher and students, by entropy",
    "weights": "both entropies, and lines of equal weight",
    "tsne": "t-SNE of the penultimate features",
    "landscape_contours": "loss landscape",
    "landscape_surfaces": "loss landscape as a surface",
    "landscape_area": "area of low loss over the training",
}
DRAWN_HERE = ("dynamics",)  # analyses that the page draws itself
LARGEST_SVG = 600_000  # bytes; of a larger one the PNG is taken


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        title: below it; also what stands in for it.
        uri: data URI.
        width, height: pixels; None of an SVG.
    """

    title: str
    uri: str
    width: int | None = None
    height: int | None = None


def shrink(path: Path, title: str) -> Picture:
    """A picture as a JPEG of at most WIDTH pixels.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            image = image.convert("RGB")
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is no picture: {error}") from error
    if image.width > WIDTH:
        size = WIDTH, round(image.height * WIDTH / image.width)
        image = image.resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, optimize=True)
    return Picture(title, data_uri("image/jpeg", file.getvalue()), *image.size)


def together(folder: Path) -> list[Picture]:
    """The demo's picture of what all its runs detect, from the folder that holds them."""
    path = folder / "detections.png"
    return [shrink(path, "ground truth, and what each run detects")] if path.exists() else []


def detections(folder: Path) -> list[Picture]:
    """A few of the pictures that tools/visualize.py has drawn of a run."""
    paths = sorted((folder / "pictures").glob("*.png"), key=_natural)[:MOST_PICTURES]
    return [shrink(path, f"image {path.stem}") for path in paths]


def analyses(folder: Path) -> list[Picture]:
    """The figures of tools/analyze.py in FOLDER/analysis, or an empty list.

    Raises:
        UserError: a file is broken.
    """
    files = [path for path in (folder / "analysis").glob("*") if path.suffix in (".svg", ".png")]
    names = {path.with_suffix("") for path in files if path.stem not in DRAWN_HERE}
    return [_analysis(name) for name in sorted(names, key=_natural)]


def _analysis(name: Path) -> Picture:
    svg, png = name.with_suffix(".svg"), name.with_suffix(".png")
    title = TITLES.get(name.name, name.name.replace("_", " "))
    if not png.exists() or (svg.exists() and svg.stat().st_size <= LARGEST_SVG):
        return Picture(title, data_uri("image/svg+xml", svg.read_bytes()))
    return shrink(png, title)


def _natural(path: Path) -> list:
    """Numbers in names by their size."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
