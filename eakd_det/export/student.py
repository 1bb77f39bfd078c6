"""The student of a run as a small stock checkpoint with a stock config."""

import logging
import os

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from eakd_det.checkpoint.checkpointer import last_checkpoint, load_strictly
from eakd_det.config.defaults import OUR_BACKBONES, stock_config
from eakd_det.config.merge import load_config
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_atomically


def export_student(run_dir: str, output_dir: str, checkpoint: str | None = None) -> str:
    """Export a run's newest checkpoint, or `checkpoint`.

    Args:
        run_dir: OUTPUT_DIR of the run, with its student.yaml.
        output_dir: gets student.pth (weights alone, no optimizer state), and student.yaml, whose
            MODEL.WEIGHTS names it.

    Returns:
        Path of the weights.

    Raises:
        UserError: there is no run or no checkpoint, or the weights do not fit the stock model.
    """
    cfg, model, names = load_run(run_dir, checkpoint)
    os.makedirs(output_dir, exist_ok=True)
    path = os.path.join(output_dir, "student.pth")
    with write_atomically(path, "wb") as f:
        content = {"model": model.state_dict(), "__author__": "eakd_det"}
        torch.save({**content, "class_names": list(names)} if names else content, f)
    cfg.MODEL.WEIGHTS = path
    with write_atomically(os.path.join(output_dir, "student.yaml")) as f:
        f.write(cfg.dump())
    if cfg.MODEL.BACKBONE.NAME in OUR_BACKBONES:
        logging.getLogger(__name__).info(
            f"Its backbone, {cfg.MODEL.BACKBONE.NAME}, is one of this package: call "
            "eakd_det.config.add_distill_config(cfg) before Detectron2 merges student.yaml."
        )
    return path


def load_run(run_dir: str, checkpoint: str | None) -> tuple[CfgNode, nn.Module, tuple[str, ...]]:
    """Return the stock config of a run's student, the model on the CPU, and the class names.

    Args:
        checkpoint: of the weights; None is the run's newest.

    Returns:
        Config, model, and class names in the checkpoint, empty if it has none.

    Raises:
        UserError: there is no run or no checkpoint, or the weights do not fit the stock model.
    """
    config = os.path.join(run_dir, "student.yaml")
    if not os.path.isfile(config):
        raise UserError(f"{run_dir} has no student.yaml: name the OUTPUT_DIR of a run.")
    cfg = stock_config(load_config(config))  # registers the backbones of this package, too
    device, cfg.MODEL.DEVICE = cfg.MODEL.DEVICE, "cpu"
    model = build_model(cfg)
    cfg.MODEL.DEVICE = device
    names = load_strictly(model, checkpoint or last_checkpoint(run_dir), key="--checkpoint")
    return cfg, model, names
