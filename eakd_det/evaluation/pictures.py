"""Pictures of what a run's teacher and student detect."""

import argparse
import os
import random

from detectron2.data import DatasetCatalog, MetadataCatalog

from eakd_det.checkpoint.checkpointer import last_checkpoint
from eakd_det.config.merge import load_config
from eakd_det.data.custom import use_val_data
from eakd_det.modeling.build import load_student, load_teacher
from eakd_det.utils.command_line import data_sources
from eakd_det.utils.device import use_available_device
from eakd_det.utils.errors import UserError
from eakd_det.utils.visualizer import draw_side_by_side

from .detections import detect


def draw_run(args: argparse.Namespace) -> None:
    """Draw ground truth, teacher and student side by side; print the path of each picture.

    Args:
        args: of `tools/visualize.py`.

    Raises:
        UserError: the config, the dataset or a checkpoint is wrong.
    """
    cfg = load_config(args.config_file, args.opts)
    use_val_data(cfg, cfg.OUTPUT_DIR, data_sources(args, "val"), clip=args.clip_boxes)
    use_available_device(cfg)
    name = args.dataset or next(iter(cfg.DATASETS.TEST), "")
    if name not in DatasetCatalog:
        raise UserError(
            f"There is no dataset {name!r}: name one with --dataset, or files with --val-json and "
            "--val-images."
        )
    scenes = DatasetCatalog.get(name)
    scenes = random.Random(args.seed).sample(scenes, min(args.num_images, len(scenes)))
    has_teacher = bool(cfg.TEACHER.CONFIG_FILE)
    title = "student" if has_teacher else os.path.basename(os.path.abspath(cfg.OUTPUT_DIR))
    detectors = {"teacher": load_teacher(cfg)} if has_teacher else {}
    detectors[title] = load_student(cfg, args.weights or last_checkpoint(cfg.OUTPUT_DIR))
    found = {title: detect(*detector, scenes) for title, detector in detectors.items()}
    output = args.output or os.path.join(cfg.OUTPUT_DIR, "pictures")
    os.makedirs(output, exist_ok=True)
    for scene in scenes:
        path = os.path.join(output, f"{scene['image_id']}.png")
        metadata = MetadataCatalog.get(name)
        draw_side_by_side(path, [scene], metadata, found, threshold=args.threshold)
        print(path)
