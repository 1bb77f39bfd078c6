"""Backbones that Detectron2 does not have."""

from . import mobilenetv2

__all__ = ["mobilenetv2"]
