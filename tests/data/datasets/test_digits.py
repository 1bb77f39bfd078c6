import os

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode
from sklearn.datasets import load_digits

from eakd_det.data.datasets.digits import NAMES, NUM_TRAIN_DIGITS

FIRST_USE = """
from detectron2.data import DatasetCatalog
import eakd_det.data.datasets.digits as digits
digits.NUM_SCENES.update(train=3, val=2)
train = DatasetCatalog.get("digits_det_train")
val = DatasetCatalog.get("digits_det_val")
assert (len(train), len(val)) == (3, 2)
assert train[0]["annotations"][0]["bbox_mode"] == %d
print(train[0]["file_name"])
"""


@pytest.fixture
def first_use(call_code):
    """Calls FIRST_USE with environment variables; the path that it prints."""

    def call(**variables):
        environment = {k: v for k, v in os.environ.items() if k != "DETECTRON2_DATASETS"}
        code = FIRST_USE % BoxMode.XYWH_ABS
        code, out, err = call_code(code, environment={**environment, **variables})
        assert code == 0, err
        return out.strip().splitlines()[-1]

    return call


def test_generated_on_first_use(first_use, tmp_path):
    root = str(tmp_path / "elsewhere")
    assert first_use(DETECTRON2_DATASETS=root).startswith(root)
    assert (tmp_path / "elsewhere" / "digits_det" / "val" / "00002.png").exists()


def test_generated_under_datasets(first_use):
    assert first_use() == os.path.join("datasets", "digits_det", "train", "00001.png")


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
