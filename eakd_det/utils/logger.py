"""Detectron2's logs: no colours in files, and no whole config on the terminal."""

import logging
import re
import sys

from detectron2.utils.logger import setup_logger

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")  # that colours a terminal
DUMPS = ("Running with full config:", "Contents of args.config_file=")


class PlainFormatter(logging.Formatter):
    """Detectron2's format of files, without the colours that are in some of its messages."""

    def __init__(self):
        super().__init__(
            "[%(asctime)s] %(name)s %(levelname)s: %(message)s", datefmt="%m/%d %H:%M:%S"
        )

    def format(self, record: logging.LogRecord) -> str:
        return ESCAPE.sub("", super().format(record))


def set_up_loggers(output_dir: str, rank: int) -> None:
    """Make the loggers that `default_setup` would make.

    The terminal leaves out the configs, hundreds of lines above whatever comes next; they are in
    log.txt and config.yaml. To be called before `default_setup`, which keeps what it finds.
    """
    loggers = [
        setup_logger(output_dir, distributed_rank=rank, name="fvcore"),
        setup_logger(output_dir, distributed_rank=rank),
    ]
    for handler in (handler for logger in loggers for handler in logger.handlers):
        if handler.stream is sys.stdout:
            handler.addFilter(lambda record: not record.getMessage().startswith(DUMPS))
        else:
            handler.setFormatter(PlainFormatter())
