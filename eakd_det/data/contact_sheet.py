"""Contact sheet of a dataset: a few images with their boxes and class names."""

import os
import random
from collections import Counter, defaultdict
from typing import Any

import numpy as np
from detectron2.data.detection_utils import read_image
from PIL import Image, ImageDraw, ImageFont

from eakd_det.utils.drawing import FONT, INK, PAPER, draw_boxes
from eakd_det.utils.files import write_atomically

from .custom import CustomData

IMAGES, COLUMNS = 20, 4
CELL = (600, 450)  # pixels of an image on the sheet
LETTERS, LINE, GAP = 16, 22, 6  # pixels
LEAST_SIZE = 24  # pixels on the sheet of the median box; a part of the image is shown for it
LARGEST_SCALE = 4.0  # of a part
MOST_LABELS = 25  # boxes of an image up to which each has its name; of more, one of each class
SEED = 1


def write_contact_sheet(custom: CustomData) -> str:
    """Draw images of a dataset beside its checked copy; return the path of the PNG.

    The images are chosen at random, the same in each call; those with the rarest classes come
    first. Where most boxes would be tiny, a part of the image is shown.
    """
    chosen = _choose(custom.data)
    cells = [_draw_cell(custom, image, annotations) for image, annotations in chosen]
    height = CELL[1] + 2 * LINE + GAP
    columns = min(COLUMNS, len(cells))
    size = (columns * (CELL[0] + GAP) - GAP, LINE + -(-len(cells) // COLUMNS) * height)
    sheet = Image.new("RGB", size, PAPER)
    title = f"{custom.name}: {len(cells)} of {len(custom.data['images'])} images"
    _write(sheet, 0, title)
    for i, cell in enumerate(cells):
        sheet.paste(cell, (i % COLUMNS * (CELL[0] + GAP), LINE + i // COLUMNS * height))
    path = os.path.join(os.path.dirname(custom.json_file), f"{custom.name}.png")
    with write_atomically(path, "wb") as f:
        sheet.save(f, format="PNG")
    return path


def _choose(data: dict[str, Any]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Return at most IMAGES images with their annotations, the rarest classes first."""
    images = random.Random(SEED).sample(data["images"], len(data["images"]))
    of_image, with_class = defaultdict(list), defaultdict(set)
    for annotation in data["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
        with_class[annotation["category_id"]].add(annotation["image_id"])
    chosen: dict[Any, dict[str, Any]] = {}
    for ids in sorted(with_class.values(), key=len)[:IMAGES]:
        if ids.isdisjoint(chosen):
            image = next(image for image in images if image["id"] in ids)
            chosen[image["id"]] = image
    for image in images:
        if len(chosen) == min(IMAGES, len(images)):
            break
        chosen[image["id"]] = image
    return [(image, of_image[i]) for i, image in chosen.items()]


def _draw_cell(
    custom: CustomData, image: dict[str, Any], annotations: list[dict[str, Any]]
) -> Image.Image:
    """Draw an image or a part of it, and two lines below: its name and size, and its objects."""
    pixels = read_image(os.path.join(custom.image_root, image["file_name"]), "RGB")
    boxes = np.array([a["bbox"] for a in annotations], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    window = _window(boxes, image["width"], image["height"])
    is_shown = ((boxes[:, :2] < window[2:]) & (boxes[:, 2:] > window[:2])).all(axis=1)
    shown = [a for a, is_in in zip(annotations, is_shown, strict=True) if is_in]
    names = [name for _, name in custom.classes]
    index = {i: k for k, i in enumerate(sorted(c["id"] for c in custom.data["categories"]))}
    classes = [index[a["category_id"]] for a in shown]
    labels = [_label(names[c], a) for c, a in zip(classes, shown, strict=True)]
    if len(labels) > MOST_LABELS:  # the first of each class tells its colour
        labels = [
            x if classes.index(c) == i else ""
            for i, (c, x) in enumerate(zip(classes, labels, strict=True))
        ]
    panel, scale = _crop(pixels, window)
    inside = np.clip(boxes[is_shown], np.tile(window[:2], 2), np.tile(window[2:], 2))
    panel = draw_boxes(panel, (inside - np.tile(window[:2], 2)) * scale, classes, labels)
    size = f"{image['width']} x {image['height']}"
    if len(shown) < len(boxes):
        size += f", with {len(shown)} boxes in this part of it"
    counts = Counter(names[index[a["category_id"]]] for a in annotations).most_common()
    objects = ", ".join(f"{name} ({number})" for name, number in counts)
    cell = Image.new("RGB", (CELL[0], CELL[1] + 2 * LINE), PAPER)
    cell.paste(Image.fromarray(panel))
    _write(cell, CELL[1], f"{image['file_name']} ({size})")
    _write(cell, CELL[1] + LINE, f"{len(boxes)} boxes: {objects}" if objects else "no boxes")
    return cell


def _window(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return x1, y1, x2, y2 of the part of an image to show: all, or what enlarges its boxes."""
    size, cell = np.array([width, height]), np.array(CELL)
    scale = fit = (cell / size).min()
    if len(boxes):
        median = np.median(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)))
        scale = max(fit, min(LEAST_SIZE / median, LARGEST_SCALE))
    if scale == fit:
        return np.array([0, 0, width, height])
    sides = np.minimum(cell / scale, size).astype(int)
    box = boxes[len(boxes) // 2]
    start = np.clip((box[:2] + box[2:] - sides) / 2, 0, size - sides).astype(int)
    return np.concatenate([start, start + sides])


def _crop(pixels: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, float]:
    """Resize a part of an image to a cell; return the cell and the scale."""
    sides = window[2:] - window[:2]
    scale = float((np.array(CELL) / sides).min())
    part = Image.fromarray(pixels).crop(tuple(window.tolist()))
    width, height = (max(1, round(scale * side)) for side in sides.tolist())
    panel = Image.new("RGB", CELL, PAPER)
    panel.paste(part.resize((width, height), Image.Resampling.BICUBIC))
    return np.asarray(panel), scale


def _label(name: str, annotation: dict[str, Any]) -> str:
    return f"{name} (crowd)" if annotation["iscrowd"] else name


def _write(sheet: Image.Image, top: int, text: str) -> None:
    """Write a line on a sheet, shortened in its middle to the sheet's width."""
    draw, font = ImageDraw.Draw(sheet), ImageFont.truetype(FONT, LETTERS)
    kept = len(text)
    shortened = text
    while draw.textlength(shortened, font=font) > sheet.width - 2 * GAP:
        kept -= 1
        shortened = f"{text[: kept // 2]}...{text[-(kept // 2) :]}"
    draw.text((GAP, top), shortened, fill=INK, font=font)
