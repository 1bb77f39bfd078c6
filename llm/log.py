"""Logging of the tools."""

import logging


def show_progress() -> None:
    """Show this package's log messages; transformers shows its own."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    logger = logging.getLogger(__package__)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # imported packages may set handlers of the root logger
