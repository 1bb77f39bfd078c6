"""The warnings of a run, told once more at its end: a line that is long past is not read."""

import logging
import re

NUMBERS = re.compile(r"(?<!\w)\d[\w.+-]*(, \d[\w.+-]*)*")


class WarningList(logging.Handler):
    """Keeps the warnings that it handles; of those that differ in numbers alone, the last."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self._kept: dict[str, logging.LogRecord] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self._kept[NUMBERS.sub("#", record.getMessage())] = record

    def tell(self) -> None:
        """Log them, a line each with the time at which the log has it, and forget them."""
        clock = logging.Formatter(datefmt="%m/%d %H:%M:%S")  # that of Detectron2's log
        lines = [
            f"- [{clock.formatTime(record, clock.datefmt)}] {' '.join(record.getMessage().split())}"
            for record in self._kept.values()
        ]
        self._kept.clear()
        if lines:
            logging.getLogger(__name__).info("\n".join(["What to look at:", *lines]))
