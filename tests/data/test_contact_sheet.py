import numpy as np
import pytest
from PIL import Image

from eakd_det.data import contact_sheet
from eakd_det.data.contact_sheet import CELL, IMAGES, write_contact_sheet
from eakd_det.data.custom import CustomData

from .test_coco_check import save_image


@pytest.fixture
def custom(tmp_path):
    """Makes a dataset of images that have a file, with annotations."""

    def make(size, number, annotations):
        save_image(tmp_path / "a.png", size=size)
        image = {"file_name": "a.png", "width": size[0], "height": size[1]}
        data = {
            "images": [{"id": i, **image} for i in range(number)],
            "annotations": [{"iscrowd": 0, **a} for a in annotations],
            "categories": [{"id": i, "name": f"class {i}"} for i in range(30)],
        }
        return CustomData("custom_train", str(tmp_path / "train.json"), str(tmp_path), data)

    return make


def test_the_same_twenty_images_with_the_rarest_classes(custom, tmp_path):
    rare = [{"image_id": 70 + i, "category_id": i, "bbox": [5, 6, 20, 10]} for i in range(10)]
    often = [{"image_id": i, "category_id": 20, "bbox": [5, 6, 20, 10]} for i in range(100)]
    data = custom((900, 20), 100, [*often, *rare])  # noise is slow to be written
    chosen = contact_sheet._choose(data.data)
    assert {image["id"] for image, _ in chosen[:10]} == set(range(70, 80))
    assert len({image["id"] for image, _ in chosen}) == IMAGES
    assert contact_sheet._choose(data.data) == chosen
    assert write_contact_sheet(data) == str(tmp_path / "custom_train.png")
    width, height = Image.open(tmp_path / "custom_train.png").size
    assert width == 4 * CELL[0] + 3 * contact_sheet.GAP
    assert height > 5 * CELL[1]


@pytest.mark.parametrize("size", [(60, 40), (40, 900), (1500, 30)])
def test_few_images_of_any_shape(custom, size):
    annotations = [{"image_id": 1, "category_id": 0, "bbox": [2, 3, 15, 9], "iscrowd": 1}]
    sheet = Image.open(write_contact_sheet(custom(size, 2, annotations)))
    assert sheet.width == 2 * CELL[0] + contact_sheet.GAP


def test_tiny_boxes_are_enlarged():
    """Boxes of 10 pixels in an image of 4000 x 3000 get 24: the part is 250 pixels wide."""
    boxes = np.array([[2000.0, 1000, 2010, 1010]])
    x1, y1, x2, y2 = contact_sheet._window(boxes, 4000, 3000)
    assert (x2 - x1, y2 - y1) == (CELL[0] / 2.4, CELL[1] / 2.4 // 1)
    assert x1 < 2000 and x2 > 2010 and y1 < 1000 and y2 > 1010
    assert contact_sheet._window(boxes - [2000, 1000] * 2, 4000, 3000)[:2].tolist() == [0, 0]
    large = np.array([[0.0, 0, 300, 300]])
    assert contact_sheet._window(large, 4000, 3000).tolist() == [0, 0, 4000, 3000]
