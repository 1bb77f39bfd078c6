import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from torch.testing import assert_close

from eakd_det.modeling.box_deltas import box_deltas
from tests.synchronisations import synchronisations


def test_equals_detectron2():
    corners = torch.rand(2, 9, 4) * 50
    boxes, targets = torch.cat([corners[..., :2], corners[..., :2] + 1 + corners[..., 2:]], dim=2)
    weights = (10.0, 8.0, 5.0, 3.0)
    expected = Box2BoxTransform(weights=weights).get_deltas(boxes, targets)
    assert_close(box_deltas(boxes, targets, weights), expected)
    with synchronisations() as seen:
        box_deltas(boxes, targets, weights)
    assert not seen


def test_boxes_without_size():
    boxes = torch.tensor([[0.0, 0, 4, 4], [3, 3, 3, 3]])
    deltas = box_deltas(boxes, boxes.flip(0), (1.0, 1.0, 1.0, 1.0))
    assert not deltas.isfinite().all(dim=1).any()
    assert box_deltas(boxes[:0], boxes[:0], (1.0,) * 4).shape == (0, 4)
