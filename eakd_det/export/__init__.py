"""Students as plain Detectron2 models."""

from .student import export_student

__all__ = ["export_student"]
