import json

import pytest
import torch
from detectron2.structures import BoxMode

from eakd_det.analysis.detection_calibration import detection_calibration_result
from eakd_det.analysis.objects import DetectorOutputs, find_objects
from eakd_det.analysis.samples import Samples

RIGHT, WRONG = [0.0, 0.0, 20.0, 20.0], [60.0, 60.0, 20.0, 20.0]


def outputs(*found):
    """Outputs with detections (image, box, score)."""
    detections = [
        {"image_id": image, "category_id": 0, "bbox": [*box], "score": score}
        for image, box, score in found
    ]
    empty = torch.zeros(0, 1)
    return DetectorOutputs(Samples(empty[:, 0], empty, empty), detections)


def test_d_ece_by_hand(tmp_path):
    annotation = {"category_id": 0, "bbox": RIGHT, "bbox_mode": BoxMode.XYWH_ABS, "iscrowd": 0}
    objects = find_objects([{"image_id": i, "annotations": [annotation]} for i in range(4)])
    sure = [(i, RIGHT if i else WRONG, 0.9) for i in range(4)]  # a precision of 3 in 4
    detectors = {
        "KD": outputs(*sure, *((i, WRONG, 0.3) for i in range(4))),
        "nothing": outputs(),
    }
    result = detection_calibration_result(objects, detectors, [["KD", "nothing"]])
    expected = 100 * (4 * 0.15 + 4 * 0.3) / 8
    assert result.rows[0][:2] == ["KD", pytest.approx(expected)]
    assert result.rows[1] == ["nothing", 0, 0]
    result.write(str(tmp_path))
    numbers = json.loads((tmp_path / "detection_calibration.json").read_text())["detectors"]
    bins = numbers["KD"]["bins"]
    assert [(x["number"], x["correct"]) for x in bins] == [(4, 0), (4, 3)]
    assert numbers["nothing"]["detections"] == 0
    figure, _ = result.figures["detection_calibration"]
    (text,) = figure.axes[0].get_legend().get_texts()
    assert text.get_text() == f"D-ECE {expected:.1f} %, 8 detections"
