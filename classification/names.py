"""Names of image sets and models in paths and tables."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eakd_det.sweep.names import method_of

from .own_images import PREFIX, is_own

OUTPUT_DIR = "output"  # of a config that does not set it, but for own images


def data_name(data: Mapping[str, Any]) -> str:
    """Return the name of an image set: DATASET.NAME, or for own images that of their folder.

    Args:
        data: node DATASET, of a CfgNode or as config.yaml has it.
    """
    if not is_own(data["NAME"]) or data["NAME"].startswith(PREFIX):
        return data["NAME"].removeprefix(PREFIX)
    folder = data["ROOT"] or os.path.dirname(data["TRAIN_CSV"])
    return os.path.basename(os.path.abspath(folder)) if folder else data["NAME"]


def model_name(name: str) -> str:
    """Return MODEL.NAME as a part of a path, as "convnext_tiny" for "timm:convnext_tiny"."""
    return name.rpartition(":")[2].replace("/", "-")


def default_output_dir(cfg: Mapping[str, Any], path: str) -> str:
    """Return OUTPUT_DIR of a config that does not set it.

    That is output/<data>/<method>/<teacher>_<student> for own images, else output.

    Args:
        path: of the config file, whose name distinguishes teachers from students.
    """
    if not is_own(cfg["DATASET"]["NAME"]):
        return OUTPUT_DIR
    teacher = cfg["TEACHER"]["NAME"] if cfg["DISTILL"]["METHODS"] else ""
    models = "_".join(model_name(name) for name in (teacher, cfg["MODEL"]["NAME"]) if name)
    method = method_of(cfg["DISTILL"], Path(path))
    return os.path.join(OUTPUT_DIR, data_name(cfg["DATASET"]), method, models)
