"""Config, weights and class names in the folder of a trained detector."""

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from detectron2.utils.file_io import PathManager

from eakd_det.utils.errors import UserError

from .checkpointer import last_checkpoint
from .safe_pickle import load_pth

CONFIGS = ("student.yaml", "config.yaml")  # ours, which is a stock config, before the whole one
# Best and final checkpoint of a run, and the weights of an exported student.
WEIGHTS = ("model_best.pth", "model_final.pth", "student.pth")
NEWEST = "last_checkpoint"  # Detectron2's file with the name of the newest checkpoint

# Nodes of the YAML config of a detector, and one of classifiers and language models alone.
_DETECTOR, _OTHER = (re.compile(rf"^({x}):", re.MULTILINE) for x in ("MODEL|_BASE_", "DATASET"))
_MOST_FILES = 12  # listed in a message


@dataclass(frozen=True)
class RunFolder:
    """Files of a trained detector.

    Attributes:
        config_file: path of its Detectron2 config.
        weights: path of its checkpoint.
        class_names: names in the order of its classes; None if the checkpoint has none.
    """

    config_file: str
    weights: str
    class_names: tuple[str, ...] | None


def find_run(folder: str) -> RunFolder:
    """Find config and weights in the OUTPUT_DIR of a run or an exported student's folder.

    The run is one of this package, or of Detectron2's DefaultTrainer (config.yaml and
    model_final.pth). Its best checkpoint precedes its final one. For a run that has neither, such
    as a training that still goes on, it is the newest, and a warning is logged.

    Raises:
        UserError: `folder` is not a folder, has no config of a detector or no weights (the message
            lists its files), or the checkpoint is broken or unsafe.
    """
    if not PathManager.isdir(folder):
        kind = "a file" if PathManager.isfile(folder) else "missing"
        raise UserError(
            f"{folder} is {kind}: name the folder of a trained detector, with its "
            f"{_either(CONFIGS)} and {_either(WEIGHTS)}."
        )
    config = _first(folder, CONFIGS)
    if not config:
        raise UserError(f"{folder} has no config: {_missing(folder, CONFIGS)}")
    with PathManager.open(config, errors="replace") as f:
        text = f.read()
    if not _DETECTOR.search(text) or _OTHER.search(text):
        raise UserError(
            f"{config} is not the YAML config of a detector. Classifiers, language models and runs "
            "of Python configs cannot be used here."
        )
    weights = _first(folder, WEIGHTS) or _newest(folder)
    names = load_pth(weights).get("class_names")
    return RunFolder(config, weights, tuple(names) if names else None)


def _first(folder: str, names: Sequence[str]) -> str:
    """Return the path of the first file that exists, or an empty one."""
    paths = (os.path.join(folder, name) for name in names)
    return next(filter(PathManager.isfile, paths), "")


def _newest(folder: str) -> str:
    """Return the newest checkpoint of an unfinished run, with a warning."""
    path = last_checkpoint(folder) if _first(folder, (NEWEST,)) else ""
    if not PathManager.isfile(path):
        raise UserError(f"{folder} has no weights: {_missing(folder, (*WEIGHTS, NEWEST))}")
    logging.getLogger(__name__).warning(
        f"{folder} has no {_either(WEIGHTS)}: the run is not finished; its newest checkpoint "
        f"{os.path.basename(path)} is used."
    )
    return path


def _missing(folder: str, names: Sequence[str]) -> str:
    files = sorted(PathManager.ls(folder))
    more = f" and {len(files) - _MOST_FILES} more" if len(files) > _MOST_FILES else ""
    holds = ", ".join(files[:_MOST_FILES]) + more if files else "nothing"
    return f"there is no {_either(names)} in it. It holds {holds}."


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
