import pytest
from detectron2 import model_zoo

from eakd_det.config.defaults import add_distill_config
from eakd_det.modeling.anchors import anchor_levels, anchor_node


@pytest.mark.parametrize(
    ("name", "node", "strides", "smallest"),
    [
        ("COCO-Detection/faster_rcnn_R_101_FPN_3x.yaml", "RPN", [4, 8, 16, 32, 64], 32),
        ("COCO-Detection/faster_rcnn_R_50_C4_3x.yaml", "RPN", [16], 32),
        ("COCO-Detection/retinanet_R_50_FPN_3x.yaml", "RETINANET", [8, 16, 32, 64, 128], 32),
    ],
)
def test_anchors_of_stock_detectors(name, node, strides, smallest):
    cfg = model_zoo.get_config(name)
    add_distill_config(cfg)
    assert anchor_node(cfg) == node
    levels = anchor_levels(cfg)
    assert [level.stride for level in levels] == strides
    area = min(level.shapes.prod(axis=1).min() for level in levels)
    assert area**0.5 == pytest.approx(smallest, rel=1e-4)


def test_other_proposals(stock_cfg):
    stock_cfg.MODEL.PROPOSAL_GENERATOR.NAME = "PrecomputedProposals"
    assert anchor_node(stock_cfg) == ""
