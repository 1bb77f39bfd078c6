"""EA-KD: entropy-based adaptive knowledge distillation for Detectron2 (arXiv 2311.13621)."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `distill`, which needs Detectron2, when it is first used."""
    if name == "distill":
        from eakd_det.engine.distill import distill

        return distill
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
