import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_anchor_generator
from detectron2.structures import Boxes, pairwise_iou

from eakd_det.data.anchor_match import AnchorLevel, best_iou, too_small

STRIDES = (8, 16)


@pytest.fixture(params=[0.0, 0.5])
def generator(request):
    cfg = get_cfg()
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16, 24], [48]]
    cfg.MODEL.ANCHOR_GENERATOR.OFFSET = request.param
    return build_anchor_generator(cfg, [ShapeSpec(stride=stride) for stride in STRIDES])


def levels_of(generator):
    return [
        AnchorLevel(stride, generator.offset, (cell[:, 2:] - cell[:, :2]).numpy())
        for stride, cell in zip(STRIDES, generator.cell_anchors, strict=True)
    ]


def test_best_iou_equals_that_over_all_anchors(generator):
    """For boxes no larger than the cells' neighbourhood; at the nearest position it is highest."""
    random = np.random.default_rng(0)
    start = random.uniform(20, 180, (200, 2))
    boxes = np.concatenate([start, start + random.uniform(3, 70, (200, 2))], axis=1)
    maps = [torch.zeros(1, 1, 256 // stride, 256 // stride) for stride in STRIDES]
    anchors = Boxes.cat(generator(maps))
    expected = pairwise_iou(Boxes(torch.tensor(boxes)), anchors).max(dim=1).values
    np.testing.assert_allclose(best_iou(boxes, levels_of(generator)), expected, rtol=1e-5)


def test_too_small_boxes(generator):
    """A box of 13 pixels at a 16-pixel anchor's centre has an IoU of 0.66, one of 14 of 0.77."""
    levels = levels_of(generator)
    centre = 8 * (3 + generator.offset)
    boxes = np.array([[centre - s / 2] * 2 + [centre + s / 2] * 2 for s in (5, 13, 14, 100)])
    assert too_small(boxes, levels, 0.7).tolist() == [True, True, False, False]
    assert best_iou(boxes, levels)[1] == pytest.approx((13 / 16) ** 2)
    assert too_small(np.zeros((0, 4)), levels, 0.7).shape == (0,)
