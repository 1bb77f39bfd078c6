"""Meta-architectures and backbones; importing this package registers them with Detectron2."""

from .backbone import mobilenetv2, timm
from .meta_arch.rcnn import DistillRCNN
from .meta_arch.retinanet import DistillRetinaNet

__all__ = ["DistillRCNN", "DistillRetinaNet", "mobilenetv2", "timm"]
