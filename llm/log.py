"""What is told while a tool runs."""

import logging


def show_progress() -> None:
    """Let this package's messages through, beside transformers' own."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    logging.getLogger(__package__).setLevel(logging.INFO)
