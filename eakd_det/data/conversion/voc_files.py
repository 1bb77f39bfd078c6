"""XML files of Pascal VOC datasets, their images, and the lists of ImageSets/Main."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

from eakd_det.data.boxes import Size
from eakd_det.utils.errors import UserError

from .source import IMAGES, SPLITS, find_files
from .xml import read_xml

# A line of a list: the id, in quotes if it has spaces, and possibly 1, 0 or -1.
_LINE = re.compile(r'"(?P<quoted>[^"]+)".*|(?P<plain>.+?)(?:\s+(?:-1|0|1))?')


class Labels(NamedTuple):
    """Content of an XML file.

    Attributes:
        path: path of the file.
        file_name: name of the image, which is often out of date.
        size: width and height of the image, None if they are missing or 0.
        objects: COCO annotations without ids; "category_id" is the name of the class.
        below_1: number of values xmin and ymin that are less than 1.
    """

    path: str
    file_name: str
    size: Size | None
    objects: list[dict[str, Any]]
    below_1: int


def read_labels(path: str) -> Labels | str:
    """Read an XML file.

    Returns:
        Its content, or the tag of its root if that is not <annotation>.

    Raises:
        UserError: the file or one of its objects cannot be read.
    """
    tree = read_xml(path)
    if tree.tag != "annotation":
        return tree.tag
    try:
        width, height = (int(float(tree.findtext(f"size/{side}", "0"))) for side in _SIDES)
    except (ValueError, OverflowError):
        width = height = 0
    size = (width, height) if width > 0 and height > 0 else None
    file_name = re.split(r"[\\/]", (tree.findtext("filename") or "").strip())[-1]
    objects = [*_objects(path, tree)]
    starts = (e.text for key in _CORNERS[:2] for e in tree.iterfind(f"object/bndbox/{key}"))
    return Labels(path, file_name, size, objects, sum(float(text or 0) < 1 for text in starts))


class ImageFinder:
    """The images of a folder, by the names of XML files.

    Args:
        folder: folder of the images and their subfolders.
        root: folder of the XML files.
    """

    def __init__(self, folder: str, root: str):
        self.root = root
        self.paths = find_files(folder, IMAGES)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for path in self.paths:
            name = os.path.basename(path)
            for key in {name, os.path.splitext(name)[0]}:
                self._by_name[key].append(path)

    def find(self, labels: Labels) -> str:
        """Return the path of the image whose name is that of the XML file, or its <filename>.

        Of several, the one in the same folder, or in a subfolder of the same name, is meant.

        Raises:
            UserError: there is none, or several are left.
        """
        stem = os.path.splitext(os.path.basename(labels.path))[0]
        found = self._by_name.get(stem) or self._by_name.get(labels.file_name, [])
        here = os.path.dirname(labels.path)
        below = os.path.join(os.sep, os.path.relpath(here, self.root))
        for is_meant in (
            lambda path: os.path.dirname(path) == here,
            lambda path: os.path.dirname(path).endswith(below),
            lambda path: os.path.basename(path) == labels.file_name,
        ):
            found = [*filter(is_meant, found)] or found
        if len(found) != 1:
            several = f"several images: {', '.join(found[:3])}" if found else "no image"
            raise UserError(f"{labels.path}: {several} of the name {stem} or {labels.file_name!r}")
        return found[0]


def read_lists(folder: str) -> dict[str, set[str]]:
    """Read the lists of a folder ImageSets/Main.

    Returns:
        "train", "val" and "test" -> names of the XML files without extension, for the lists that
        exist; trainval.txt is used if there is no train.txt.
    """
    lists = {}
    for path in find_files(folder, (".txt",)):
        name = os.path.splitext(os.path.basename(path))[0].lower()
        split = "trainval" if name == "trainval" else SPLITS.get(name)
        if split:
            with open(path, encoding="utf-8-sig") as f:
                matches = [_LINE.fullmatch(line.strip()) for line in f]
            lists[split] = {m["quoted"] or m["plain"] for m in matches if m}
    both = lists.pop("trainval", None)
    if both is not None and "train" not in lists:
        lists["train"] = both - lists.get("val", set())
    return lists


def _objects(path: str, tree: Element) -> Iterator[dict[str, Any]]:
    for number, item in enumerate(tree.iterfind("object"), 1):
        name = (item.findtext("name") or "").strip()
        if not name:
            raise UserError(f"{path}: object {number} has no <name>")
        if item.find("bndbox") is None and item.find("robndbox") is not None:
            raise UserError(f"{path}: object {number} ({name}) is a rotated box (roLabelImg)")
        try:
            corners = [float(item.findtext(f"bndbox/{key}", "")) for key in _CORNERS]
        except ValueError as error:
            text = f"has no number in one of {', '.join(_CORNERS)} of <bndbox>"
            raise UserError(f"{path}: object {number} ({name}) {text}") from error
        # Pixels are counted from 1. A corner below 1 is of a file that counts from 0.
        x, y = (v - 1 if v >= 1 else v for v in corners[:2])
        box = [x, y, corners[2] - x, corners[3] - y]
        yield {"category_id": name, "bbox": box, **{key: _flag(item, key) for key in _FLAGS}}


def _flag(item: Element, key: str) -> int:
    return int((item.findtext(key) or "").strip().lower() in ("1", "true"))


_FLAGS = ("difficult", "truncated")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_SIDES = ("width", "height")
