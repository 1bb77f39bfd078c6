"""What is told while a tool runs."""

import logging


def show_progress() -> None:
    """Let this package's messages through; transformers shows its own."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    logger = logging.getLogger(__package__)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # to handlers of the root, which packages that are imported may set
