"""fashion_det: garments of Fashion-MNIST in cluttered scenes, generated on first use.

Digits are hard to find, garments are hard to classify: shirts, pullovers, coats and T-shirts look
alike at this size. fashion_det_3 has the same scenes with three of the classes, under other names
and in another order.
"""

import os

import numpy as np
from scipy import ndimage

from eakd_det.utils.errors import UserError

from .fashion_mnist import FETCH_FASHION_MNIST, NAMES, read_fashion_mnist
from .generated import register_generated, register_subset
from .scenes import Glyphs, write_dataset

NUM_SCENES = {"train": 2000, "val": 400}
NUM_GARMENTS = 10000  # at most, of a split; the scenes show about as many
GARMENT = 12  # grey level, of 255, above which a pixel is part of the garment
MAX_HOLE = 8  # pixels; larger holes are background, such as that under the handle of a bag
DARKEST = 0.2  # shade of the garment's black
SEED = 0
# Classes of fashion_det_3 -> those of fashion_det.
THREE = {"coat": "coat", "top": "T-shirt", "gown": "dress"}


def generate_fashion(root: str, seed: int = SEED, num_scenes: dict[str, int] = NUM_SCENES) -> None:
    """Write fashion_det into the folder `root`, which must not exist; see `write_dataset`.

    Training scenes show Fashion-MNIST's training images, validation scenes its test images. Its
    files are read from the parent folder of `root`.

    Raises:
        UserError: the files are not there.
    """
    beside = os.path.dirname(root)
    splits = {
        split: (read_garments(beside, is_train=split == "train"), num_scenes[split])
        for split in ("train", "val")
    }
    write_dataset(root, splits, NAMES, seed)


def register_fashion() -> None:
    """Register fashion_det and fashion_det_3, _train and _val of each."""
    register_generated("fashion_det", NAMES, generate_fashion)
    register_subset("fashion_det_3", "fashion_det", THREE, generate_fashion)


def read_garments(folder: str, *, is_train: bool) -> Glyphs:
    """Load garments as glyphs, opaque inside their silhouette and shaded by their grey levels.

    Args:
        folder: folder of Fashion-MNIST.
        is_train: load the training images, else the test images.

    Raises:
        UserError: the files are not there.
    """
    try:
        pixels, labels = read_fashion_mnist(folder, is_train)
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"fashion_det is generated from Fashion-MNIST, which is not in {folder} "
            f"($DETECTRON2_DATASETS; {reason}). To get it: "
            f"{FETCH_FASHION_MNIST.format(root=folder)}"
        ) from error
    # One empty pixel all around, so that slanted edges are not cut at the glyph's edge.
    pixels = np.pad(pixels[:NUM_GARMENTS].numpy(), ((0, 0), (1, 1), (1, 1)))
    opacity = np.stack([silhouette(picture) for picture in pixels]).astype(np.float32)
    shade = DARKEST + (1 - DARKEST) * pixels.astype(np.float32) / 255
    return Glyphs(opacity, labels[:NUM_GARMENTS].numpy(), shade)


def silhouette(picture: np.ndarray) -> np.ndarray:
    """Mask of a garment, (h, w) bool, with its black spots but without large holes.

    Args:
        picture: (h, w) uint8, the garment bright on black.
    """
    garment = picture > GARMENT
    parts, number = ndimage.label(~garment)  # part 1 holds the corner, which is background
    sizes = ndimage.sum_labels(~garment, parts, range(number + 1))
    is_spot = sizes <= MAX_HOLE
    return garment | is_spot[parts]
