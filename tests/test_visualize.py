import json

import numpy as np
import pytest
from detectron2.data import Metadata
from detectron2.structures import BoxMode
from PIL import Image

from eakd_det.visualize import GAP, MIN_WIDTH, TITLE_HEIGHT, draw_side_by_side, read_detections


@pytest.fixture
def metadata():
    return Metadata(thing_classes=["cat", "dog"], thing_dataset_id_to_contiguous_id={3: 0, 7: 1})


@pytest.fixture
def detections(tmp_path, metadata):
    found = [
        {"image_id": 5, "category_id": 7, "bbox": [10, 12, 20, 8], "score": 0.9},
        {"image_id": 5, "category_id": 3, "bbox": [0, 0, 4, 4], "score": 0.2},
    ]
    (tmp_path / "results.json").write_text(json.dumps(found))
    return read_detections(str(tmp_path / "results.json"), metadata)


def test_read_detections(detections):
    [(image_id, found)] = detections.items()
    assert image_id == 5
    assert found.pred_boxes.tensor.tolist() == [[10, 12, 30, 20], [0, 0, 4, 4]]
    assert found.pred_classes.tolist() == [1, 0]
    assert found.scores.tolist() == [0.9, 0.2]


def _draw(tmp_path, metadata, detections, threshold):
    Image.new("RGB", (60, 30)).save(tmp_path / "scene.png")
    truth = [{"bbox": [10, 12, 20, 8], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}]
    scene = {"file_name": str(tmp_path / "scene.png"), "image_id": 5, "annotations": truth}
    columns = {"teacher": detections, "student": {}}
    path = str(tmp_path / "sheet.png")
    draw_side_by_side(path, [scene], metadata, columns, threshold=threshold)
    return np.asarray(Image.open(path))


def _panels(sheet):
    return [
        sheet[TITLE_HEIGHT:-GAP, i * (MIN_WIDTH + GAP) : i * (MIN_WIDTH + GAP) + MIN_WIDTH]
        for i in range(3)
    ]


def test_draws_a_column_each(tmp_path, metadata, detections):
    truth, teacher, student = _panels(_draw(tmp_path, metadata, detections, 0.5))
    assert truth.any()
    assert teacher.any()
    assert not student.any(), "no detections: the black scene stays black"


def test_threshold_counts(tmp_path, metadata, detections):
    _, some, _ = _panels(_draw(tmp_path, metadata, detections, 0.5))
    _, more, _ = _panels(_draw(tmp_path, metadata, detections, 0.1))
    assert not np.array_equal(some, more)
