#!/usr/bin/env python
"""Write the student of a run as a small plain checkpoint with a stock Detectron2 config.

    tools/export_student.py output/COCO-Detection/EA-DKD-R18-R101 exported/

writes exported/student.pth (weights alone, no optimizer state) and exported/student.yaml, whose
MODEL.WEIGHTS is its path. Stock Detectron2 loads both without this toolkit.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, installed or not

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from eakd_det.utils import command_line


def parse_arguments():
    parser = command_line.make_parser(__doc__)
    parser.add_argument("run_dir", help="OUTPUT_DIR of the run, with its student.yaml")
    parser.add_argument("output_dir", help="folder to write student.pth and student.yaml into")
    parser.add_argument("--checkpoint", help="checkpoint to export; the run's newest by default")
    return parser.parse_args()


def main(args):
    from detectron2.utils.logger import setup_logger

    from eakd_det.export import export_student

    logger = setup_logger(name="eakd_det")
    path = export_student(args.run_dir, args.output_dir, args.checkpoint)
    logger.info("Exported %s", path)


if __name__ == "__main__":
    command_line.run(main, parse_arguments())
