import shutil

import pytest
from PIL import Image

from eakd_det.config.defaults import add_distill_config
from eakd_det.data.custom import prepare_custom_data
from eakd_det.engine.data_report import report_data
from tests.data.test_custom import make


@pytest.fixture
def report(stock_cfg, tmp_path):
    """Checks training and validation data of `make`, and reports them; the paragraphs."""
    add_distill_config(stock_cfg)
    stock_cfg.INPUT.MIN_SIZE_TRAIN, stock_cfg.INPUT.MIN_SIZE_TEST = (40,), 40

    def report(**sources):
        return [*report_data(stock_cfg, prepare_custom_data(str(tmp_path / "checked"), **sources))]

    return report


def test_report_of_both(report, tmp_path):
    train = make(tmp_path / "train")
    val = make(tmp_path / "val", annotations=[{"image_id": 1, "category_id": 2}])
    text = report(train=train, val=val)
    assert text[0].splitlines() == [
        "custom_train: 2 images (0 without annotations), 2 boxes (0 of crowds), 2 categories",
        "custom_val: 2 images (1 without annotations), 1 boxes (0 of crowds), 2 categories",
    ]
    assert [line.split() for line in text[1].splitlines()[2:]] == [
        ["bolt", "2", "0", "none", "in", "val"],
        ["nut", "0", "1", "none", "in", "train"],
    ]
    assert text[2].splitlines()[2].split() == ["size,", "train", *5 * ["20"]]
    assert "train: images are resized to a shorter edge of 40 pixels" in text[3]
    for split, paragraph in zip(("train", "val"), text[4:6], strict=True):
        assert paragraph.startswith(f"custom_{split}: images with their boxes are drawn in ")
        assert Image.open(paragraph.rpartition(" in ")[2]).format == "PNG"
    assert text[6:] == ["No image of the validation data looks like one of the training data."]


def test_near_duplicates(report, tmp_path):
    train, val = make(tmp_path / "train"), make(tmp_path / "val")
    shutil.copy(tmp_path / "train" / "a.png", tmp_path / "val" / "b.png")
    lines = report(train=train, val=val)[6].splitlines()
    assert lines[0].startswith("1 of 2 validation images look much like a training image: if they")
    assert lines[1:] == ["  b.png looks like a.png"]


def test_boxes_that_are_too_small_for_the_anchors(report, tmp_path):
    """The smallest anchor has 16 pixels."""
    boxes = [[5, 6, 8, 8], [5, 6, 20, 20], [5, 6, 30, 30]]
    objects = [{"image_id": 1, "category_id": 1, "bbox": box} for box in boxes]
    source = make(tmp_path / "train", annotations=objects)
    *_, warning = report(train=source)
    assert warning.startswith(
        "custom_train: 33% of the boxes are too small for the anchors. The smallest anchor has 16 "
        "pixels, and none reaches an IoU of 0.7 (MODEL.RPN.IOU_THRESHOLDS)"
    )
    assert "tools/convert_data.py coco --tile" in warning


def test_no_objects_at_all(report, tmp_path):
    source = make(tmp_path / "train", annotations=[])
    text = report(train=source)
    assert text[0].startswith("custom_train: 2 images (2 without annotations), 0 boxes")
    assert len(text) == 3
