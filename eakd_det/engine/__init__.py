"""Training of detectors."""

from .trainer import DistillTrainer, evaluate

__all__ = ["DistillTrainer", "evaluate"]
