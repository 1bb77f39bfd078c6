import numpy as np
import pytest

from eakd_det.data.custom import CustomData
from eakd_det.data.object_statistics import class_table, network_boxes, shorter_edge, size_table


def custom(split, annotations):
    data = {
        "images": [{"id": 1, "width": 200, "height": 100}, {"id": 2, "width": 50, "height": 100}],
        "annotations": [{"iscrowd": 0, "image_id": 1, **a} for a in annotations],
        "categories": [{"id": 7, "name": "bolt"}, {"id": 3, "name": "nut"}],
        "notes": [],
    }
    return CustomData(f"custom_{split}", "", "", data)


@pytest.fixture
def data():
    train = [
        {"category_id": 7, "bbox": [10, 20, 30, 40]},
        {"category_id": 7, "bbox": [1, 2, 3, 4], "iscrowd": 1},
        {"category_id": 3, "bbox": [5, 10, 10, 10], "image_id": 2},
    ]
    return {"train": custom("train", train), "val": custom("val", train[:2])}


def test_classes_side_by_side(data):
    lines = [line.split() for line in class_table(data).splitlines()]
    assert lines[0] == ["class", "train", "val"]
    assert lines[2:] == [["nut", "1", "0", "none", "in", "val"], ["bolt", "1", "1"]]


def test_boxes_in_pixels_of_the_network(data):
    """Both images get a shorter edge of 50, so that the first is halved; crowds do not count."""
    boxes = network_boxes(data["train"].data, (50, 1000))
    np.testing.assert_allclose(boxes, [[5, 10, 20, 30], [5, 10, 15, 20]])
    boxes = network_boxes(data["train"].data, (200, 200))
    np.testing.assert_allclose(boxes, [[10, 20, 40, 60], [10, 20, 30, 40]])
    assert network_boxes(data["train"].data, (0, 1000))[0].tolist() == [10, 20, 40, 60]
    data["train"].data["annotations"].clear()
    assert network_boxes(data["train"].data, (50, 1000)).shape == (0, 4)


def test_quantiles_of_sizes_and_ratios():
    boxes = np.array([[0, 0, side, 4 * side] for side in (1.0, 2, 3, 4, 5)])
    lines = [line.split() for line in size_table({"train": boxes, "val": boxes[:0]}).splitlines()]
    assert lines[0][-5:] == ["5%", "25%", "50%", "75%", "95%"]
    assert lines[2] == ["size,", "train", "2", "4", "6", "8", "10"]
    assert lines[3] == ["width", "/", "height,", "train", *5 * ["0.25"]]
    assert len(lines) == 4


def test_edges_of_the_config(stock_cfg):
    stock_cfg.INPUT.MIN_SIZE_TRAIN, stock_cfg.INPUT.MAX_SIZE_TRAIN = (800, 640, 720), 1333
    stock_cfg.INPUT.MIN_SIZE_TEST, stock_cfg.INPUT.MAX_SIZE_TEST = 600, 1000
    assert shorter_edge(stock_cfg, "train") == (720, 1333)
    assert shorter_edge(stock_cfg, "val") == (600, 1000)
