"""Synthetic detection scenes: small glyphs pasted into clutter, written as COCO-format datasets."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from tqdm import tqdm

from .generated import folder_when_complete

SIZE = 96  # height and width of a scene, pixels
INK = 0.5  # opacity from which a pixel counts as ink
MIN_INK = 20  # glyphs with fewer pixels of ink are left out
MIN_VISIBLE = 0.75  # fraction of each earlier glyph's ink that a new one must leave visible


@dataclass
class Glyphs:
    """Pictures of M glyphs to paste into scenes.

    Attributes:
        opacity: (M, h, w) in [0, 1].
        labels: (M,) class of each glyph.
        shade: (M, h, w) factor of a glyph's colour in [0, 1]; None is 1 everywhere.
    """

    opacity: np.ndarray
    labels: np.ndarray
    shade: np.ndarray | None = None


@dataclass
class Scene:
    """A rendered scene with its ground truth.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        owner: (H, W) int, index of the glyph whose ink is on top, -1 for none.
        classes: class index of each glyph.
    """

    image: np.ndarray
    owner: np.ndarray
    classes: list[int]

    def boxes(self) -> list[list[int]]:
        """XYWH boxes in pixels, tight to the visible ink of each glyph."""
        result = []
        for i in range(len(self.classes)):
            ys, xs = np.nonzero(self.owner == i)
            x, y = int(xs.min()), int(ys.min())
            result.append([x, y, int(xs.max()) - x + 1, int(ys.max()) - y + 1])
        return result


def render_scene(rng: np.random.Generator, glyphs: Glyphs) -> Scene:
    """Render one scene of up to 9 glyphs with random size, slant, colour, clutter and overlap.

    Args:
        rng: the only source of randomness.
        glyphs: glyphs to draw from.
    """
    background = rng.uniform(0, 90, 3)
    image = _background(rng, background)
    owner = np.full((SIZE, SIZE), -1)
    classes: list[int] = []
    sizes: list[int] = []
    for index in rng.integers(len(glyphs.labels), size=rng.integers(4, 10)):
        place = _random_place(rng, glyphs.opacity.shape[1:])
        # The steep ramp turns the blur of the enlargement back into an edge.
        opacity = ((_put(glyphs.opacity[index], place) - INK) * 3 + INK).clip(0, 1)
        ink = opacity > INK
        left = [((owner == i) & ~ink).sum() / size for i, size in enumerate(sizes)]
        if ink.sum() < MIN_INK or any(part < MIN_VISIBLE for part in left):
            continue
        colour = _contrasting_colour(rng, background)
        if glyphs.shade is not None:
            colour = colour * _put(glyphs.shade[index], place)[..., None]
        image = image * (1 - opacity[..., None]) + colour * opacity[..., None]
        owner[ink] = len(classes)
        classes.append(int(glyphs.labels[index]))
        sizes.append(int(ink.sum()))
    if not classes:  # rare: every glyph fell off the edge, but a scene needs at least one
        return render_scene(rng, glyphs)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image = image + noise * rng.uniform(2, 8)
    return Scene(image.clip(0, 255).astype(np.uint8), owner, classes)


def _background(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    """Draw a slanted colour gradient with lines, ellipses and boxes as clutter; (H, W, 3)."""
    ramp = np.linspace(-0.5, 0.5, SIZE)
    slope = rng.uniform(-50, 50, (2, 3))
    base = colour + ramp[:, None, None] * slope[0] + ramp[None, :, None] * slope[1]
    canvas = Image.fromarray(base.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(3, 10)):
        (x0, y0), (dx, dy) = rng.uniform(0, SIZE, 2), rng.uniform(6, 34, 2)
        tint = tuple((colour + rng.uniform(-50, 50, 3)).clip(0, 255).astype(int).tolist())
        box, width = [x0, y0, x0 + dx, y0 + dy], int(rng.integers(1, 5))
        shape = rng.integers(4)
        if shape == 0:
            draw.line([x0, y0, x0 + dx, y0 + rng.choice([-1, 1]) * dy], fill=tint, width=width)
        elif shape == 1:
            draw.arc(box, *sorted(rng.uniform(0, 360, 2)), fill=tint, width=width)
        elif shape == 2:
            draw.ellipse(box, fill=tint)
        else:
            draw.rectangle(box, fill=tint)
    blurred = canvas.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1.5))))
    return np.asarray(blurred, dtype=np.float64)


def _random_place(rng: np.random.Generator, shape: tuple[int, int]) -> list[float]:
    """Draw scale, slant and position of an (h, w) glyph, as coefficients of `Image.transform`."""
    height = rng.uniform(26, 46)
    width = height * rng.uniform(0.75, 1.1)
    angle, shear = np.deg2rad(rng.uniform(-10, 10)), rng.uniform(-0.15, 0.15)
    centre = rng.uniform(height / 2, SIZE - height / 2, 2)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    forward = rotation @ np.array([[1, shear], [0, 1]])
    # Image.transform takes the inverse map, from a pixel of the scene to a pixel of the glyph.
    scale = np.diag([shape[1] / width, shape[0] / height])
    back = scale @ np.linalg.inv(forward)
    offset = np.array(shape[::-1]) / 2 - back @ centre
    return [*back[0], offset[0], *back[1], offset[1]]


def _put(picture: np.ndarray, place: list[float]) -> np.ndarray:
    """Paste a picture with values in [0, 1] at its place in an empty scene, (H, W)."""
    source = Image.fromarray((picture * 255).astype(np.uint8))
    placed = source.transform((SIZE, SIZE), Image.Transform.AFFINE, place, Image.BICUBIC)
    return np.asarray(placed) / 255


def _contrasting_colour(rng: np.random.Generator, background: np.ndarray) -> np.ndarray:
    while True:
        colour = rng.uniform(130, 255, 3)
        if (colour - background).sum() > 300:
            return colour


def write_dataset(
    root: str,
    splits: dict[str, tuple[Glyphs, int]],
    names: Sequence[str],
    seed: int,
) -> None:
    """Write COCO-format splits under `root`, which appears only when they are complete.

    Args:
        root: folder to create, with `root/<split>/*.png` and `root/annotations/<split>.json`.
        splits: split -> (glyphs, number of scenes).
        names: name of each class; category ids count from 1.
        seed: the same seed gives the same bytes.
    """
    with folder_when_complete(root) as folder:
        os.makedirs(os.path.join(folder, "annotations"))
        for number, (split, (glyphs, count)) in enumerate(splits.items()):
            rng = np.random.default_rng([seed, number])
            scenes = (
                render_scene(rng, glyphs)
                for _ in tqdm(range(count), f"{os.path.basename(root)} {split}", mininterval=2)
            )
            _write_split(folder, split, scenes, names)


def _write_split(root: str, split: str, scenes, names: Sequence[str]) -> None:
    os.makedirs(os.path.join(root, split))
    images, annotations = [], []
    for image_id, scene in enumerate(scenes, start=1):
        file_name = f"{image_id:05d}.png"
        Image.fromarray(scene.image).save(os.path.join(root, split, file_name))
        images.append({"id": image_id, "file_name": file_name, "height": SIZE, "width": SIZE})
        for label, box in zip(scene.classes, scene.boxes(), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    with open(os.path.join(root, "annotations", f"{split}.json"), "w") as f:
        json.dump(content, f)
