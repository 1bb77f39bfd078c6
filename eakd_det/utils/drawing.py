"""Drawing of boxes on an image, with labels placed to hide as little as possible."""

import colorsys
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

MIN_WIDTH = 420  # pixels; smaller images are enlarged
LETTERS = 16  # pixels, least height of a label's letters
LETTERS_SHARE = 0.02  # height of a label's letters as a fraction of a large image's width
PAPER, INK = "#161b22", "#f0f6fc"  # colours around photographs, for bright and dark pages
FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")  # has many scripts
GOLDEN_RATIO = 0.618034  # step of hue that gives neighbouring classes different colours


def draw_boxes(
    image: np.ndarray, boxes: np.ndarray, classes: list[int], labels: list[str]
) -> np.ndarray:
    """Draw boxes, in one bright colour a class, on an image, which is enlarged if it is small.

    Args:
        image: (H, W, 3) RGB.
        boxes: (N, 4) x1, y1, x2, y2 in its pixels.
        classes, labels: class index and label of each of the N boxes; an empty label is not drawn.
    """
    scale = max(1.0, MIN_WIDTH / image.shape[1])
    size = tuple(int(scale * side) for side in image.shape[1::-1])
    sheet = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(sheet)
    letters = max(LETTERS, round(LETTERS_SHARE * sheet.width))
    font = ImageFont.truetype(FONT, letters)
    scaled, colours = (np.asarray(boxes) * scale).tolist(), [_colour(c) for c in classes]
    for box, colour in zip(scaled, colours, strict=True):
        draw.rectangle(box, outline=colour, width=max(2, letters // 7))
    taken = list(scaled)
    for box, label, colour in zip(scaled, labels, colours, strict=True):
        if not label:
            continue
        length = draw.textlength(label, font=font) + letters // 2
        tag = place_tag(box, (length, 1.25 * letters), sheet.size, taken)
        taken.append(tag)
        draw.rectangle(tag, fill=colour)
        middle = (tag[0] + tag[2]) / 2, (tag[1] + tag[3]) / 2
        draw.text(middle, label, fill=_ink_on(colour), font=font, anchor="mm")
    return np.asarray(sheet)


def place_tag(
    box: list[float], size: tuple[float, float], panel: tuple[int, int], taken: list[list[float]]
) -> list[float]:
    """Choose the position of a box's label that hides least of other boxes and labels.

    Args:
        box: x1, y1, x2, y2 of the box, pixels.
        size, panel: width and height of the label and of the panel, pixels.
        taken: all boxes and the labels that are already placed.

    Returns:
        x1, y1, x2, y2 of the label, which touches the box from outside, preferably above it, and
        lies in the panel.
    """
    x1, y1, x2, y2 = box
    width, height = size
    corners = [(x, y) for y in (y1 - height, y2) for x in (x1, x2 - width)]
    corners += [(x, y) for x in (x2, x1 - width) for y in (y1, y2 - height)]
    tags = []
    for x, y in corners:
        x = max(0.0, min(x, panel[0] - width))
        y = max(0.0, min(y, panel[1] - height))
        tags.append([x, y, x + width, y + height])
    return min(tags, key=lambda tag: sum(_shared_area(tag, other) for other in taken))


def _shared_area(a: list[float], b: list[float]) -> float:
    width, height = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    return max(width, 0.0) * max(height, 0.0)


def _colour(class_index: int) -> tuple[int, ...]:
    rgb = colorsys.hsv_to_rgb((class_index * GOLDEN_RATIO) % 1, 0.75, 1.0)
    return tuple(round(255 * x) for x in rgb)


def _ink_on(colour: tuple[int, ...]) -> str:
    red, green, blue = colour
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "white"
