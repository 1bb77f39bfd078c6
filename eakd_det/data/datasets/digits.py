"""digits_det: real handwritten digits in cluttered scenes, generated on first use.

The handwriting is scikit-learn's copy of the UCI "Optical Recognition of Handwritten Digits" set
(1797 digits of 13 writers, 8 x 8 pixels), so nothing is downloaded.
"""

import numpy as np

from .generated import register_generated
from .scenes import Glyphs, write_dataset

NAMES = [str(digit) for digit in range(10)]
NUM_SCENES = {"train": 1200, "val": 200}
NUM_TRAIN_DIGITS = 1297  # of 1797; digits are sorted by writer, so val has other writers
SEED = 0


def generate_digits(root: str, seed: int = SEED, num_scenes: dict[str, int] = NUM_SCENES) -> None:
    """Write digits_det into the folder `root`, which must not exist; see `write_dataset`."""
    from sklearn.datasets import load_digits  # slow to import, needed once per machine

    digits = load_digits()
    # One empty pixel all around, so that slanted strokes are not cut at the glyph's edge.
    glyphs = np.pad(digits.images / 16, ((0, 0), (1, 1), (1, 1)))
    parts = {"train": slice(None, NUM_TRAIN_DIGITS), "val": slice(NUM_TRAIN_DIGITS, None)}
    splits = {
        split: (Glyphs(glyphs[part], digits.target[part]), num_scenes[split])
        for split, part in parts.items()
    }
    write_dataset(root, splits, NAMES, seed)


def register_digits() -> None:
    """Register digits_det_train and digits_det_val."""
    register_generated("digits_det", NAMES, generate_digits)
