"""Students as plain Detectron2 models, TorchScript and ONNX."""

from .graph import FORMATS, export_graph
from .student import export_student

__all__ = ["FORMATS", "export_graph", "export_student"]
