"""EA-KD: entropy-based adaptive knowledge distillation for Detectron2 (arXiv 2311.13621)."""

__version__ = "0.1.0"
