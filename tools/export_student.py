#!/usr/bin/env python
"""Write the student of a run as a small plain checkpoint with a stock Detectron2 config.

    tools/export_student.py output/COCO-Detection/EA-DKD-R18-R101 exported/

writes exported/student.pth (weights alone, no optimizer state) and exported/student.yaml, whose
MODEL.WEIGHTS names it. Stock Detectron2 loads both; this toolkit is not needed any more.
"""

import argparse
import os
import sys

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.utils.logger import setup_logger

from eakd_det.checkpoint.checkpointer import last_checkpoint, load_strictly
from eakd_det.config.merge import merge_config
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_atomically


def export(run_dir: str, output_dir: str, checkpoint: str | None = None) -> str:
    """Export a run's newest checkpoint, or `checkpoint`; returns the path of the weights."""
    config = os.path.join(run_dir, "student.yaml")
    if not os.path.isfile(config):
        raise UserError(f"{run_dir} has no student.yaml: name the OUTPUT_DIR of a run.")
    cfg = get_cfg()
    merge_config(cfg, config)
    device = cfg.MODEL.DEVICE
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg)
    names = load_strictly(model, checkpoint or last_checkpoint(run_dir), key="--checkpoint")
    os.makedirs(output_dir, exist_ok=True)
    path = os.path.join(output_dir, "student.pth")
    with write_atomically(path, "wb") as f:
        content = {"model": model.state_dict(), "__author__": "eakd_det"}
        torch.save({**content, "class_names": list(names)} if names else content, f)
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = device, path
    with write_atomically(os.path.join(output_dir, "student.yaml")) as f:
        f.write(cfg.dump())
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", help="OUTPUT_DIR of the run, with its student.yaml")
    parser.add_argument("output_dir", help="folder to write student.pth and student.yaml into")
    parser.add_argument("--checkpoint", help="path of another than the run's newest")
    args = parser.parse_args()
    logger = setup_logger(name="eakd_det")
    try:
        logger.info("Exported %s", export(args.run_dir, args.output_dir, args.checkpoint))
    except UserError as error:
        sys.exit(f"error: {error}")
