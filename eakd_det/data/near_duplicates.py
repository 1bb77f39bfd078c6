"""Images of the training data that are in the validation data, too, or look much the same."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

FEW_BITS = 4  # of 64, by which the fingerprints of near-duplicates may differ
MOST_PAIRS = 20  # that are listed
ROWS = 256  # validation images that are compared at once


class NearDuplicates(NamedTuple):
    """Near-duplicates of two sets of images.

    Attributes:
        images: number of images of the second set that have one in the first.
        pairs: indices in the first and in the second set, at most MOST_PAIRS.
    """

    images: int
    pairs: list[tuple[int, int]]


def find_near_duplicates(train: Sequence[int], val: Sequence[int]) -> NearDuplicates:
    """Find images whose fingerprints (`ImageFile`) differ by at most FEW_BITS.

    Args:
        train, val: fingerprints of the images.
    """
    first, second = _signs(train), _signs(val)
    images, pairs = 0, []
    starts = range(0, len(second), ROWS)
    for start in tqdm(starts, "comparing images", delay=2, leave=False):
        # The dot product of two signs of 64 bits is 64 minus twice the number of other bits.
        is_close = second[start : start + ROWS] @ first.T >= 64 - 2 * FEW_BITS
        images += int(is_close.any(axis=1).sum())
        if is_close.any() and len(pairs) < MOST_PAIRS:
            pairs += [(int(i), int(start + j)) for j, i in np.argwhere(is_close)]
    return NearDuplicates(images, pairs[:MOST_PAIRS])


def _signs(fingerprints: Sequence[int]) -> np.ndarray:
    """Return the bits of (N,) fingerprints as (N, 64) float32, 1 and -1."""
    octets = np.array(fingerprints, np.uint64).view(np.uint8).reshape(-1, 8)
    return 2.0 * np.unpackbits(octets, axis=1).astype(np.float32) - 1
