#!/usr/bin/env python
"""Draw ground truth, teacher and student side by side, a PNG for each image.

tools/visualize.py --config-file configs/Digits-Detection/EA-DKD-R18-R101.yaml
tools/visualize.py --config-file run/config.yaml --weights run/model_best.pth --dataset parts_val
tools/visualize.py --config-file run/config.yaml --val-json parts/val.json --val-images parts/images

The student is the one that the config's run has trained, or the checkpoint of --weights. A run
without a teacher has the name of its folder in place of "student". Data that the run was evaluated
on with --val-json need not be named again.
"""

import argparse
import os
import random
import sys

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from detectron2.data import DatasetCatalog, MetadataCatalog

from eakd_det.checkpoint.checkpointer import last_checkpoint
from eakd_det.config.defaults import detection_config
from eakd_det.config.merge import load_config
from eakd_det.data.custom import prepare_custom_data, register_checked_copy, use_custom_data
from eakd_det.evaluation.detections import detect
from eakd_det.modeling.build import load_student, load_teacher
from eakd_det.utils import command_line
from eakd_det.utils.device import use_available_device
from eakd_det.utils.errors import UserError
from eakd_det.utils.visualizer import draw_side_by_side


def main(args):
    cfg = load_config(args.config_file, args.opts)
    if bool(args.val_json) != bool(args.val_images):
        raise UserError("--val-json and --val-images belong together.")
    folder = os.path.join(cfg.OUTPUT_DIR, "annotations")
    if args.val_json:
        val = (args.val_json, args.val_images)
        options = {"masks": cfg.MODEL.MASK_ON, "clip": args.clip_boxes}
        use_custom_data(cfg, prepare_custom_data(folder, val=val, **options))
    else:
        register_checked_copy(cfg, folder)
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


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="of the run")
    parser.add_argument("--weights", help="the student; the run's newest checkpoint by default")
    parser.add_argument("--dataset", help="a registered one; the first of DATASETS.TEST by default")
    parser.add_argument("--val-json", metavar="FILE", help="data in COCO format")
    parser.add_argument("--val-images", metavar="FOLDER")
    parser.add_argument("--clip-boxes", action="store_true", help="as in the training")
    parser.add_argument("--num-images", type=int, default=12, help="drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--threshold", type=float, default=0.5, help="lowest score that is drawn")
    parser.add_argument("--output", help="folder; OUTPUT_DIR/pictures by default")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs of the config")
    return command_line.parse_arguments(parser, detection_config())


if __name__ == "__main__":
    try:
        main(parse_arguments())
    except UserError as error:
        sys.exit(f"error: {error}")
