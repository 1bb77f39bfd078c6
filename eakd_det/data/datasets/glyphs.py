"""glyphs100: characters of 100 classes from hundreds of typefaces, drawn on first use.

Latin, Greek and Cyrillic characters, many of which are alike (O 0 o, l 1 I |, B ß β в), of 24 x 24
pixels, between parts of other characters, with slants, warps, blur and noise. Test images show
typefaces that no training image shows.
"""

import hashlib
import logging
import os
import time
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, features
from PIL import __version__ as pillow
from scipy import ndimage
from torch import Tensor
from tqdm import tqdm

from eakd_det.utils.files import read_json, write_json
from eakd_det.utils.lock import POLL_SECONDS, Lock

from .generated import folder_when_complete
from .typefaces import TABLE, Face, find_fonts, read_faces

logger = logging.getLogger(__name__)

CLASSES = (
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz|!ß"
    "αβγδεζηθμνπρστχωΘЗБИЧЪЬЯбвзчяАВЕКМН"
)
PER_CLASS = {"train": 500, "test": 100}  # images, as in CIFAR-100
SEED = 0
VERSION = 1  # of the code that draws; raise it with every change of the pixels
SIZE = 24  # pixels; glyphs are drawn and warped at twice that scale, in which lengths below are
EM = 52
PAPER = (256, 128)  # width and height of the drawing
BASELINE, MIDDLE = 82, 64  # rows of the paper: of the baseline, and of an image's middle
LARGEST = 46  # width and height to which larger glyphs are scaled
SCALE, SHEAR, TURN = (0.64, 0.83), 0.25, 0.12  # factor, and largest slope and angle (radians)
SHIFT, GAP = 3.0, (2, 10)  # largest offset, and distance of the neighbours
WARP = 1.2  # standard deviation of the displacements on a grid of 4 x 4
BLUR = (0.4, 1.0)  # standard deviation, in pixels of the image
INK, GROUND, SLOPE = (130, 255), (0, 90), 30  # grey levels, and the ground's change over the image
NOISE = (4, 24)  # standard deviation, grey levels
# SHA256 of the images with the versions below, which drew them first.
REFERENCE = (
    "c124004567db8aed45c0252b702c81442b93f847f9ed29703d9b476dedeafc47",
    "Pillow 13.0.0, FreeType 2.14.3",
)

SETTINGS = (
    *(VERSION, SEED, CLASSES, PER_CLASS, SIZE, EM, PAPER, BASELINE, MIDDLE, LARGEST, SCALE, SHEAR),
    *(TURN, SHIFT, GAP, WARP, BLUR, INK, GROUND, SLOPE, NOISE),
)

_STEPS = np.linspace(0, 3, 2 * SIZE)
SPREAD = np.maximum(0, 1 - np.abs(_STEPS[:, None] - np.arange(4)))  # bilinear, from the grid


def read_glyphs(root: str, is_train: bool) -> tuple[Tensor, Tensor]:
    """Read glyphs100 in the folder `root`, where it is generated if it is missing.

    Returns:
        (N, 24, 24) uint8, bright on dark, and (N,) int64 labels, indices of CLASSES.

    Raises:
        UserError: font files are missing or are others.
    """
    folder = os.path.join(root, f"glyphs100-{fingerprint()[:12]}")
    if not os.path.isdir(folder):
        _generate_alone(folder)
    record = read_json(os.path.join(folder, "record.json"))
    if record["sha256"] != REFERENCE[0]:
        logger.warning(
            "The pixels of %s, drawn by %s, differ from those drawn by %s: results differ slightly",
            *(folder, record["drawn_by"], REFERENCE[1]),
        )
    split = "train" if is_train else "test"
    images = np.load(os.path.join(folder, f"{split}.npy"))
    return torch.from_numpy(images), torch.arange(len(CLASSES)).repeat_interleave(PER_CLASS[split])


def fingerprint() -> str:
    """Return a hash of all that the images depend on, except for the libraries that draw them."""
    return hashlib.sha256(TABLE.read_bytes() + repr(SETTINGS).encode()).hexdigest()


def generate_glyphs(folder: str, faces: Sequence[Face], fonts: Sequence[str]) -> None:
    """Write train.npy, test.npy and record.json into `folder`, which must not exist.

    Args:
        faces: of both splits.
        fonts: path of each face.
    """
    logger.info("Drawing glyphs100 from %d font files into %s, once", len(faces), folder)
    digest = hashlib.sha256()
    with folder_when_complete(folder) as aside:
        for split in PER_CLASS:
            images = draw_split(split, faces, fonts)
            digest.update(images.data)
            np.save(os.path.join(aside, f"{split}.npy"), images)
        drawn_by = f"Pillow {pillow}, FreeType {features.version('freetype2')}"
        record = {"fingerprint": fingerprint(), "sha256": digest.hexdigest(), "drawn_by": drawn_by}
        write_json(os.path.join(aside, "record.json"), record)


def draw_split(split: str, faces: Sequence[Face], fonts: Sequence[str]) -> np.ndarray:
    """Draw the images of a split, (N, 24, 24) uint8, class by class.

    A family is drawn at random for each image, then a face of it that has the character.
    """
    load = partial(ImageFont.truetype, size=EM, layout_engine=ImageFont.Layout.BASIC)
    loaded = [
        load(path) if f.split == split else None for f, path in zip(faces, fonts, strict=True)
    ]
    images = np.empty((len(CLASSES), PER_CLASS[split], SIZE, SIZE), np.uint8)
    for label, character in enumerate(
        tqdm(CLASSES, f"glyphs100 {split}", unit="class", disable=None)
    ):
        families: dict[str, list[int]] = {}
        for i, face in enumerate(faces):
            if face.split == split and character not in face.without:
                families.setdefault(face.family, []).append(i)
        choices = list(families.values())
        for number in range(PER_CLASS[split]):
            rng = np.random.default_rng([SEED, split == "train", label, number])
            family = choices[rng.integers(len(choices))]
            i = family[rng.integers(len(family))]
            around = [c for c in CLASSES if c not in faces[i].without]
            images[label, number] = draw(loaded[i], character, around, rng)
    return images.reshape(-1, SIZE, SIZE)


def draw(
    font: ImageFont.FreeTypeFont, character: str, around: Sequence[str], rng: np.random.Generator
) -> np.ndarray:
    """Draw an image of a character, (24, 24) uint8.

    Args:
        font: of size EM.
        around: characters of which two are drawn beside it, largely outside of the image.
    """
    left, top, right, bottom = font.getbbox(character, anchor="ls")
    paper = Image.new("L", PAPER)
    pen = ImageDraw.Draw(paper)
    x = (PAPER[0] - right - left) // 2
    pen.text((x, BASELINE), character, fill=255, font=font, anchor="ls")
    before, after = (around[i] for i in rng.integers(len(around), size=2))
    gaps = rng.integers(*GAP, size=2)
    end = x + left - int(gaps[0])
    pen.text((end - font.getbbox(before, anchor="ls")[2], BASELINE), before, 255, font, "ls")
    start = x + right + int(gaps[1])
    pen.text((start - font.getbbox(after, anchor="ls")[0], BASELINE), after, 255, font, "ls")
    scale = min(rng.uniform(*SCALE), LARGEST / max(right - left, bottom - top))
    ink = warp(np.asarray(paper, np.float32) / 255, scale, rng)
    ink = ndimage.gaussian_filter(ink, rng.uniform(*BLUR))
    slope = rng.uniform(-SLOPE, SLOPE, 2)[:, None] * np.linspace(-0.5, 0.5, SIZE)
    ground = rng.uniform(*GROUND) + slope[0][:, None] + slope[1]
    image = ground + ink * (rng.uniform(*INK) - ground)
    image += rng.normal(0, rng.uniform(*NOISE), image.shape)
    return image.clip(0, 255).round().astype(np.uint8)


def warp(paper: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Return the middle of a drawing, (24, 24), scaled, slanted, turned, moved and bent."""
    slant, turn = rng.uniform(-SHEAR, SHEAR), rng.uniform(-TURN, TURN)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    matrix = np.array([[1, 0], [slant, 1]]) @ rotation / scale  # acts on (row, column)
    grid = np.arange(2 * SIZE) - SIZE + 0.5
    places = np.stack(np.meshgrid(grid, grid, indexing="ij")).reshape(2, -1)
    bends = [(SPREAD @ rng.normal(0, WARP, (4, 4)) @ SPREAD.T).ravel() for _ in range(2)]
    middle = np.array([MIDDLE, PAPER[0] / 2]) + rng.uniform(-SHIFT, SHIFT, 2)
    places = matrix @ places + bends + middle[:, None]
    large = ndimage.map_coordinates(paper, places, order=1).reshape(SIZE, 2, SIZE, 2)
    return large.mean((1, 3))


def _generate_alone(folder: str) -> None:
    """Generate the set, while other processes that want it wait."""
    root = os.path.dirname(os.path.abspath(folder))
    os.makedirs(root, exist_ok=True)
    faces = read_faces()
    fonts = find_fonts(faces, root)
    with Lock.of_folder(folder) as lock:
        while not lock.acquire():
            time.sleep(POLL_SECONDS)
        if not os.path.isdir(folder):
            generate_glyphs(folder, faces, fonts)
