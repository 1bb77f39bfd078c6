"""Backbones that Detectron2 lacks."""

from . import mobilenetv2

__all__ = ["mobilenetv2"]
