"""Pictures and figures in the folders of runs, reduced for a page."""

import io
import re
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from eakd_det.analysis.figures import DPI
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import read_json

from .charts import data_uri

WIDTH = 1600  # largest width, pixels
QUALITY = 85  # of JPEG
MOST_PICTURES = 4  # of a run
TITLES = {  # titles of analyses by file name; other files are titled by their name
    "ap_segments": "AP over fifths of the objects, by entropy",
    "entropy_segments": "accuracy of teacher and students, by entropy",
    "weights": "both entropies, and lines of equal weight",
    "confusions": "true and predicted classes",
    "calibration": "accuracy over confidence, before and after temperature scaling",
    "detection_calibration": "precision of the detections over their confidence",
    "tsne": "t-SNE of the penultimate features",
    "landscape_contours": "loss landscape",
    "landscape_surfaces": "loss landscape as a surface",
    "landscape_area": "area of low loss over the training",
}
GALLERY = "objects of the highest w_EA"
DRAWN_HERE = ("dynamics",)  # analyses that the page draws itself
READABLE = 1.25  # least pixels on the screen per point at which a figure's text is legible
LARGEST_SVG = 600_000  # bytes; for a larger SVG the PNG is used


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        title: caption, also used as the alternative text.
        uri: data URI.
        width, height: pixels; None for an SVG.
        readable: least width on the screen, in pixels, at which its text is legible.
        is_drawing: it has dark lines on white, which a dark page inverts, and is not a photograph.
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
    """Load a picture and encode it as a JPEG of at most WIDTH pixels.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            image = image.convert("RGB")
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not a picture: {error}") from error
    if image.width > WIDTH:
        size = WIDTH, round(image.height * WIDTH / image.width)
        image = image.resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, optimize=True)
    return Picture(title, data_uri("image/jpeg", file.getvalue()), *image.size)


def together(folder: Path) -> list[Picture]:
    """Load the demo's picture of the detections of all runs, from the folder of the demo."""
    path = folder / "detections.png"
    if not path.exists():
        return []
    return [replace(shrink(path, "ground truth, and the detections of each run"), readable=1000)]


def detections(folder: Path) -> list[Picture]:
    """Load up to MOST_PICTURES pictures that tools/visualize.py has drawn for a run."""
    paths = sorted((folder / "pictures").glob("*.png"), key=_natural)[:MOST_PICTURES]
    return [shrink(path, f"image {path.stem}") for path in paths]


def analyses(folder: Path) -> list[Picture]:
    """Load the figures of tools/analyze.py in FOLDER/analysis, if there are any.

    Raises:
        UserError: a file is broken.
    """
    files = [path for path in (folder / "analysis").glob("*") if path.suffix in (".svg", ".png")]
    names = {path.with_suffix("") for path in files if path.stem not in DRAWN_HERE}
    return [_analysis(name) for name in sorted(names, key=_natural)]


def _analysis(name: Path) -> Picture:
    svg, png = name.with_suffix(".svg"), name.with_suffix(".png")
    numbers = read_json(name.with_suffix(".json"))
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
    """Sorting key of file names in which numbers are compared by value."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
