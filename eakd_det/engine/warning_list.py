"""Warnings of a run, repeated at its end, since earlier lines of a log are easily overlooked."""

import logging
import re

NUMBERS = re.compile(r"(?<!\w)\d[\w.+-]*(, \d[\w.+-]*)*")


class WarningList(logging.Handler):
    """Keeps the warnings that it handles, and the last of those that differ in numbers only."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self._kept: dict[str, logging.LogRecord] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self._kept[NUMBERS.sub("#", record.getMessage())] = record

    def log_again(self) -> None:
        """Log the kept warnings, a line each with its original time, and clear them."""
        clock = logging.Formatter(datefmt="%m/%d %H:%M:%S")  # that of Detectron2's log
        lines = [
            f"- [{clock.formatTime(record, clock.datefmt)}] {' '.join(record.getMessage().split())}"
            for record in self._kept.values()
        ]
        self._kept.clear()
        if lines:
            logging.getLogger(__name__).info("\n".join(["What to look at:", *lines]))
