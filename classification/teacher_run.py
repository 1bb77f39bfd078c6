"""The run that trains a teacher, by TEACHER.CONFIG_FILE."""

import os

from detectron2.config import CfgNode

from eakd_det.utils.errors import UserError
from eakd_det.utils.files import read_json

from .config import as_options, load_config, scaled_schedule
from .names import default_output_dir, model_name
from .own_images import is_own

PRETRAINED = "pretrained"  # WEIGHTS of a model of timm or torchvision that are published


def teacher_config(cfg: CfgNode) -> CfgNode | None:
    """Return the config of the teacher's own run, on this run's device and data; None without.

    It has this run's mixed precision, if any. A TEACHER.NAME without WEIGHTS takes the place of the
    config's own model.
    """
    if not cfg.TEACHER.CONFIG_FILE:
        return None
    if not os.path.isfile(cfg.TEACHER.CONFIG_FILE):
        raise UserError(
            f"TEACHER.CONFIG_FILE: there is no file {cfg.TEACHER.CONFIG_FILE!r} (paths are "
            "relative to the working directory)."
        )
    try:
        teacher = load_config(cfg.TEACHER.CONFIG_FILE)
        mine, own = cfg.DATASET.NAME, teacher.DATASET.NAME
        if own != mine and not (is_own(own) and is_own(mine)):
            raise UserError(f"it is trained on {own}, the student on {mine}.")
        return load_config(cfg.TEACHER.CONFIG_FILE, teacher_options(cfg, teacher))
    except UserError as error:
        raise UserError(f"TEACHER.CONFIG_FILE {cfg.TEACHER.CONFIG_FILE}: {error}") from error


def teacher_options(cfg: CfgNode, own: CfgNode) -> list[str]:
    """Return the KEY VALUE pairs that a run passes on to its teacher's.

    Args:
        own: TEACHER.CONFIG_FILE.
    """
    teacher, data = cfg.TEACHER, cfg.DATASET
    keys = {"MODEL.DEVICE": cfg.MODEL.DEVICE}
    shared = [*data] if is_own(data.NAME) else ["ROOT", "NUM_WORKERS"]
    keys |= {f"DATASET.{key}": data[key] for key in shared if key != "TRAIN_SIZE"}
    if teacher.WEIGHTS:
        return as_options(keys)
    if cfg.SOLVER.AMP.ENABLED:
        keys |= {f"SOLVER.AMP.{key}": value for key, value in cfg.SOLVER.AMP.items()}
    if teacher.NAME not in ("", own.MODEL.NAME):
        keys["MODEL.NAME"] = teacher.NAME
        if own.OUTPUT_DIR != default_output_dir(own, teacher.CONFIG_FILE):
            folder = os.path.dirname(own.OUTPUT_DIR)
            keys["OUTPUT_DIR"] = os.path.join(folder, model_name(teacher.NAME))
    if teacher.OUTPUT_DIR:
        keys["OUTPUT_DIR"] = teacher.OUTPUT_DIR
    if teacher.PRETRAINED:
        keys["MODEL.WEIGHTS"] = PRETRAINED
    if teacher.EPOCHS:
        keys |= scaled_schedule(own.SOLVER, teacher.EPOCHS)
    return as_options(keys)


def final_checkpoint(cfg: CfgNode) -> str:
    """Return the path of a run's last weights."""
    return os.path.join(cfg.OUTPUT_DIR, "model_final.pth")


def needs_training(cfg: CfgNode) -> CfgNode | None:
    """Return the config of the teacher's run if it must be trained first, else None."""
    if not cfg.DISTILL.METHODS or cfg.TEACHER.WEIGHTS:
        return None
    teacher = teacher_config(cfg)
    return None if teacher is None or os.path.exists(final_checkpoint(teacher)) else teacher


def known_top1(cfg: CfgNode) -> float | None:
    """Return the teacher's top-1 (percent), if its weights are the last of its own run.

    None for the user's own images: the run may have been tested on others.
    """
    own = teacher_config(cfg)
    if (
        own is None
        or is_own(cfg.DATASET.NAME)
        or cfg.TEACHER.WEIGHTS not in ("", final_checkpoint(own))
    ):
        return None
    return read_json(os.path.join(own.OUTPUT_DIR, "result.json")).get("top1")
