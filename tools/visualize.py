#!/usr/bin/env python
"""Draw ground truth, teacher and student side by side, a PNG for each image.

tools/visualize.py --config-file configs/Digits-Detection/EA-DKD-R18-R101.yaml
tools/visualize.py --config-file run/config.yaml --weights run/model_best.pth --dataset parts_val
tools/visualize.py --config-file run/config.yaml --val-json parts/val.json --val-images parts/images

The student is that of the config's run, or the checkpoint of --weights. A run without a teacher has
the name of its folder in place of "student". Data that the run was evaluated on with --val-json
need not be named again.
"""

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from eakd_det.config.defaults import detection_config
from eakd_det.evaluation.pictures import draw_run
from eakd_det.utils import command_line


def parse_arguments():
    parser = command_line.make_parser(
        __doc__, "--config-file", opts="KEY VALUE pairs of the config"
    )
    parser.add_argument("--weights", help="the student; the run's newest checkpoint by default")
    parser.add_argument("--dataset", help="a registered one; the first of DATASETS.TEST by default")
    command_line.add_data_flags(parser, "val")
    parser.add_argument("--num-images", type=int, default=12, help="drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--threshold", type=float, default=0.5, help="lowest score that is drawn")
    parser.add_argument("--output", help="folder; OUTPUT_DIR/pictures by default")
    return command_line.parse_arguments(parser, detection_config())


if __name__ == "__main__":
    command_line.run(draw_run, parse_arguments())
