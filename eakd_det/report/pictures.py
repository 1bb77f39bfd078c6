"""Pictures and figures that lie in the folders of runs, made small enough for a page."""

import io
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from eakd_det.analysis.figures import DPI
from eakd_det.utils.errors import UserError

from .charts import data_uri

WIDTH = 1600  # pixels at most
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
GALLERY = "objects of the highest w_EA"
DRAWN_HERE = ("dynamics",)  # analyses that the page draws itself
READABLE = 1.25  # pixels of the screen for a point, below which a figure's letters are too small
LARGEST_SVG = 600_000  # bytes; of a larger one the PNG is taken


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        title: below it; also what stands in for it.
        uri: data URI.
        width, height: pixels; None of an SVG.
        readable: pixels of the screen that it needs in width, for its letters.
        is_drawing: dark lines on white, which a dark page turns round; a photograph is not.
        compared: labels of the runs that it shows, if there are several.
    """

    title: str
    uri: str
    width: int | None = None
    height: int | None = None
    readable: int = 544
    is_drawing: bool = False
    compared: tuple[str, ...] = ()


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
    if not path.exists():
        return []
    return [replace(shrink(path, "ground truth, and what each run detects"), readable=1000)]


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
    numbers = name.with_suffix(".json")
    numbers = json.loads(numbers.read_text()) if numbers.exists() else {}
    compared = tuple(numbers.get("compared", ()))
    is_gallery = name.name.startswith("gallery")
    title = TITLES.get(name.name, name.name.replace("_", " "))
    if is_gallery and "student" in numbers:
        title = f"{GALLERY}, {numbers['student']}"
    if not png.exists() or (svg.exists() and svg.stat().st_size <= LARGEST_SVG):
        text = svg.read_text()
        found = Picture(title, data_uri("image/svg+xml", text.encode()), readable=_readable(text))
    else:
        found = shrink(png, title)
        with Image.open(png) as image:
            found = replace(found, readable=round(READABLE * 72 / DPI * image.width))
    return replace(found, is_drawing=not is_gallery, compared=compared if len(compared) > 1 else ())


def _readable(svg: str) -> int:
    width = re.search(r'<svg[^>]*\bwidth="([\d.]+)pt"', svg)
    return round(READABLE * float(width[1])) if width else 544


def _natural(path: Path) -> list:
    """Numbers in names by their size."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
