"""Configuration of distillation: defaults, and merging of files and options."""

from .defaults import add_distill_config, detection_config, stock_config
from .merge import load_config, merge_config, merge_options

__all__ = [
    "add_distill_config",
    "detection_config",
    "load_config",
    "merge_config",
    "merge_options",
    "stock_config",
]
