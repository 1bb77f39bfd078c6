#!/usr/bin/env python
"""Convert Pascal VOC or YOLO data to COCO format; split COCO data, and tile large pictures.

tools/convert_data.py voc VOCdevkit/VOC2007 data/voc
tools/convert_data.py yolo parts data/parts --val-fraction 0.1 --seed 1
tools/convert_data.py coco parts/all.json data/parts --images parts/images --val-fraction 0.2
tools/convert_data.py coco aerial data/aerial --tile 640 --overlap 64 --val-fraction 0.1

SRC is only read. OUT gets train.json, and val.json and test.json where the source has such data or
--val-fraction divides it. Images stay where they are; only tiles are written, to OUT/tiles. The
result is checked as tools/train_net.py --check does it. See docs/datasets.md.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, installed or not

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from eakd_det.utils import command_line


def parse_arguments():
    parser = command_line.make_parser(__doc__)
    parser.add_argument("kind", choices=("voc", "yolo", "coco"), help="format of the source")
    parser.add_argument("source", metavar="SRC", help="folder; also a JSON file (coco)")
    parser.add_argument("output", metavar="OUT", help="new folder")
    parser.add_argument("--images", metavar="FOLDER", help="images of a COCO file")
    parser.add_argument(
        "--val-fraction", type=fraction, metavar="F", help="fraction of images for the validation"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the division; default: %(default)s")
    parser.add_argument(
        "--group-by",
        default="source",
        metavar="KEY",
        help="keep images together: source (tiles of a picture, by default), folder, or a regular "
        "expression that is searched in the file name, whose first group is the key",
    )
    parser.add_argument(
        "--tile", type=command_line.positive, metavar="SIZE", help="cut tiles of this many pixels"
    )
    parser.add_argument(
        "--overlap",
        type=int,
        default=64,
        help="pixels that neighbouring tiles share; default: %(default)s",
    )
    parser.add_argument(
        "--clip-boxes",
        action="store_true",
        help="clip boxes at the edges of images, and remove those that are almost outside",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a conversion in OUT")
    args = parser.parse_args()
    if args.images and args.kind != "coco":
        parser.error("--images belongs to coco; the images of voc and yolo are in SRC.")
    if args.tile and not 0 <= args.overlap < args.tile:
        parser.error(f"--overlap is {args.overlap}; it must be from 0 to below --tile {args.tile}.")
    return args


def fraction(text):
    number = float(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return number


def main(args):
    from PIL import Image

    from eakd_det.data.conversion.convert import convert

    if args.tile:  # Pillow refuses pictures of more than 179 megapixels
        Image.MAX_IMAGE_PIXELS = None
    print(convert(args))


if __name__ == "__main__":
    command_line.run(main, parse_arguments())
