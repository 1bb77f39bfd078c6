"""digits_det: real handwritten digits in cluttered scenes, generated on first use.

The handwriting is scikit-learn's copy of the UCI "Optical Recognition of Handwritten Digits" set
(1797 digits of 13 writers, 8 x 8 pixels), so nothing is downloaded.
"""

import logging
import os

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from .scenes import write_dataset

NAMES = [str(digit) for digit in range(10)]
NUM_SCENES = {"train": 1200, "val": 200}
NUM_TRAIN_DIGITS = 1297  # of 1797; the file runs writer after writer, so val has other hands
SEED = 0


def generate_digits(root: str, seed: int = SEED, num_scenes: dict[str, int] = NUM_SCENES) -> None:
    """Write digits_det into the folder `root`, which must not exist; see `write_dataset`."""
    from sklearn.datasets import load_digits  # slow to import, needed once per machine

    digits = load_digits()
    # One empty pixel all around, so that slanted strokes are not cut at the glyph's edge.
    glyphs = np.pad(digits.images / 16, ((0, 0), (1, 1), (1, 1)))
    parts = {"train": slice(None, NUM_TRAIN_DIGITS), "val": slice(NUM_TRAIN_DIGITS, None)}
    splits = {
        split: (glyphs[part], digits.target[part], num_scenes[split])
        for split, part in parts.items()
    }
    write_dataset(root, splits, NAMES, seed)


def _load(split: str, root: str) -> list[dict]:
    if not os.path.isdir(root):
        logging.getLogger(__name__).info("Generating digits_det into %s", root)
        generate_digits(root)
    paths = os.path.join(root, "annotations", f"{split}.json"), os.path.join(root, split)
    return load_coco_json(*paths, dataset_name=f"digits_det_{split}")


def register_digits() -> None:
    """Register digits_det_train and digits_det_val under $DETECTRON2_DATASETS or ./datasets."""
    root = os.path.join(os.getenv("DETECTRON2_DATASETS", "datasets"), "digits_det")
    for split in NUM_SCENES:
        name = f"digits_det_{split}"
        DatasetCatalog.register(name, lambda split=split: _load(split, root))
        MetadataCatalog.get(name).set(
            json_file=os.path.join(root, "annotations", f"{split}.json"),
            image_root=os.path.join(root, split),
            evaluator_type="coco",
            thing_classes=NAMES,
            thing_dataset_id_to_contiguous_id={i + 1: i for i in range(len(NAMES))},
        )
