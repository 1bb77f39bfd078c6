"""Backbones that Detectron2 does not have."""

from . import mobilenetv2, timm, timm_weights

__all__ = ["mobilenetv2", "timm", "timm_weights"]
