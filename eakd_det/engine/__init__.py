"""Training of detectors."""

from .evaluation import evaluate
from .trainer import DistillTrainer

__all__ = ["DistillTrainer", "evaluate"]
