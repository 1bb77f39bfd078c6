"""Configs of detectors by name: those of this repository, then those of Detectron2's model zoo."""

import difflib
from pathlib import Path

from detectron2 import model_zoo

from eakd_det.utils.errors import UserError

# The build of a wheel copies the configs beside this file; in a checkout they stand in its root.
_IN_WHEEL = Path(__file__).parent / "configs"
CONFIGS = _IN_WHEEL if _IN_WHEEL.is_dir() else Path(__file__).parents[2] / "configs"


def get_config_file(name: str) -> str:
    """Return the path of a config.

    Args:
        name: its path in the folder configs/, as "COCO-Detection/EA-DKD-R18-R101.yaml", with or
            without this folder, or a name of Detectron2's model zoo.

    Raises:
        UserError: there is no such config; the nearest names are listed.
    """
    path = CONFIGS / name.removeprefix("configs/")
    if path.is_file():
        return str(path)
    try:
        return model_zoo.get_config_file(name)
    except RuntimeError as error:
        names = [str(p.relative_to(CONFIGS)) for p in CONFIGS.glob("*-Detection/**/*.*")]
        near = difflib.get_close_matches(name, sorted(names), 3)
        hint = f" The nearest are {', '.join(near)}." if near else ""
        raise UserError(f"The model zoo has no config {name!r}.{hint}") from error
