"""Detectron2's FPN on any backbone, from its config keys; and without the RPN's own level."""

from detectron2.config import CfgNode
from detectron2.modeling import FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch import nn


def build_fpn(cfg: CfgNode, bottom_up: Backbone) -> FPN:
    """Build the FPN of an R-CNN on MODEL.FPN.IN_FEATURES; its top level is p6."""
    return _fpn(cfg, bottom_up, LastLevelMaxPool())


def build_retinanet_fpn(cfg: CfgNode, bottom_up: Backbone) -> FPN:
    """Build the FPN of a RetinaNet; its top levels, p6 and p7, are computed from res5."""
    channels = bottom_up.output_shape()["res5"].channels
    return _fpn(cfg, bottom_up, LastLevelP6P7(channels, cfg.MODEL.FPN.OUT_CHANNELS))


def _fpn(cfg: CfgNode, bottom_up: Backbone, top_block: LastLevelMaxPool | LastLevelP6P7) -> FPN:
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def leave_out_last_level(backbone: nn.Module) -> None:
    """Leave out the level that an FPN adds for the RPN alone."""
    if isinstance(backbone, FPN) and isinstance(backbone.top_block, LastLevelMaxPool):
        backbone.top_block = None
        backbone._out_features = backbone._out_features[:-1]
