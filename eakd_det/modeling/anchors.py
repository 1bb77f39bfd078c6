"""Anchors of the detector of a config."""

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_anchor_generator, build_backbone

from eakd_det.config.defaults import stock_config
from eakd_det.data.anchor_match import AnchorLevel


def anchor_node(cfg: CfgNode) -> str:
    """Return the config node of the head with anchors, empty if there is none."""
    if "RetinaNet" in cfg.MODEL.META_ARCHITECTURE:
        return "RETINANET"
    has_rpn = cfg.MODEL.PROPOSAL_GENERATOR.NAME == "RPN"
    return "RPN" if has_rpn and cfg.MODEL.ANCHOR_GENERATOR.NAME == "DefaultAnchorGenerator" else ""


def anchor_levels(cfg: CfgNode) -> list[AnchorLevel]:
    """Return the anchors of each feature map of the head that `anchor_node` names."""
    cfg = stock_config(cfg)
    with torch.device("meta"):  # the strides need no weights
        shapes = build_backbone(cfg).output_shape()
    features = [shapes[name] for name in cfg.MODEL[anchor_node(cfg)].IN_FEATURES]
    generator = build_anchor_generator(cfg, features)
    return [
        AnchorLevel(stride, generator.offset, (cell[:, 2:] - cell[:, :2]).double().numpy())
        for stride, cell in zip(generator.strides, generator.cell_anchors, strict=True)
    ]
