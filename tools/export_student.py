#!/usr/bin/env python
"""Write the student of a run as a small plain checkpoint with a stock config, or as a graph.

    tools/export_student.py output/COCO-Detection/EA-DKD-R18-R101 exported/

writes exported/student.pth (weights alone, no optimizer state) and exported/student.yaml, whose
MODEL.WEIGHTS is its path. Stock Detectron2 loads both without this toolkit.

    tools/export_student.py output/COCO-Detection/EA-DKD-R18-R101 exported/ --format onnx

writes exported/student.onnx, or with --format torchscript exported/student.ts, for one image of any
height and width a call. Both are compared at once with the student on five images: those of
--images, or of DATASETS.TEST if its files are there, or else generated ones. If a box differs by
more than 0.01 pixel or a score by more than 0.001, nothing is written and the exit code is 1.
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
    parser.add_argument("output_dir", help="folder to write into")
    parser.add_argument("--checkpoint", help="checkpoint to export; the run's newest by default")
    parser.add_argument("--format", choices=("torchscript", "onnx"), help="write a graph")
    parser.add_argument("--images", metavar="FOLDER", help="images to compare a graph on")
    parser.add_argument(
        "--size",
        nargs=2,
        type=command_line.positive,
        metavar=("HEIGHT", "WIDTH"),
        help="size of the image that is traced and timed; as an evaluation resizes the first one "
        "by default",
    )
    args = parser.parse_args()
    if not args.format and (args.images or args.size):
        parser.error("--images and --size belong to --format")
    return args


def main(args):
    from detectron2.utils.logger import setup_logger

    from eakd_det.export import export_graph, export_student

    logger = setup_logger(name="eakd_det")
    if args.format:
        options = {"checkpoint": args.checkpoint, "images": args.images, "size": args.size}
        path = export_graph(args.run_dir, args.output_dir, args.format, **options)
    else:
        path = export_student(args.run_dir, args.output_dir, args.checkpoint)
    logger.info("Exported %s", path)


if __name__ == "__main__":
    command_line.run(main, parse_arguments())
