import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode
from sklearn.datasets import load_digits

from eakd_det.data.digits import NAMES, NUM_TRAIN_DIGITS

FIRST_USE = """
from detectron2.data import DatasetCatalog
import eakd_det.data.digits as digits
digits.NUM_SCENES.update(train=3, val=2)
train = DatasetCatalog.get("digits_det_train")
val = DatasetCatalog.get("digits_det_val")
assert (len(train), len(val)) == (3, 2)
assert train[0]["annotations"][0]["bbox_mode"] == %d
print(train[0]["file_name"])
"""


def _first_use(folder, **variables):
    environment = {k: v for k, v in os.environ.items() if k != "DETECTRON2_DATASETS"}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), **variables}
    command = [sys.executable, "-c", FIRST_USE % BoxMode.XYWH_ABS]
    result = subprocess.run(
        command, cwd=folder, env=environment, check=True, text=True, capture_output=True
    )
    return result.stdout.strip().splitlines()[-1]


def test_generated_on_first_use(tmp_path):
    root = str(tmp_path / "elsewhere")
    assert _first_use(tmp_path, DETECTRON2_DATASETS=root).startswith(root)
    assert (tmp_path / "elsewhere" / "digits_det" / "val" / "00002.png").exists()


def test_generated_under_datasets(tmp_path):
    assert _first_use(tmp_path) == os.path.join("datasets", "digits_det", "train", "00001.png")


def test_metadata():
    metadata = MetadataCatalog.get("digits_det_val")
    assert metadata.thing_classes == NAMES == [str(digit) for digit in range(10)]
    assert metadata.evaluator_type == "coco"


def test_handwriting_is_disjoint():
    """No validation digit is a training digit, but for those that happen to be equal pixels."""
    digits = load_digits().images.reshape(-1, 64)
    train, val = digits[:NUM_TRAIN_DIGITS], digits[NUM_TRAIN_DIGITS:]
    assert len(val) == 500
    distances = np.abs(train[:, None] - val[None]).sum(-1)
    assert (distances == 0).sum() == 0
