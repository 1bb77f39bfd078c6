"""Loggers of Detectron2 without colours in files, configs and layers of models on the terminal."""

import logging
import re
import sys

from detectron2.utils.logger import setup_logger

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")  # colour codes of terminals
DUMPS = ("Running with full config:", "Contents of args.config_file=", "Model:\n")


class PlainFormatter(logging.Formatter):
    """Detectron2's log format of files, with the colour codes of its messages removed."""

    def __init__(self):
        super().__init__(
            "[%(asctime)s] %(name)s %(levelname)s: %(message)s", datefmt="%m/%d %H:%M:%S"
        )

    def format(self, record: logging.LogRecord) -> str:
        return ESCAPE.sub("", super().format(record))


def set_up_loggers(output_dir: str, rank: int) -> None:
    """Set up the loggers that `default_setup` would set up.

    The configs and the model's layers, hundreds of lines, are not printed on the terminal; they are
    in log.txt, and the config is in config.yaml. Call it before `default_setup`, which keeps
    existing loggers.
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
