"""Logging of the tools."""

import logging


def show_progress() -> None:
    """Show the log messages of this package and eakd_det; transformers shows its own."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    for package in (__package__, "eakd_det"):
        logger = logging.getLogger(package)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False  # imported packages may set handlers of the root logger
