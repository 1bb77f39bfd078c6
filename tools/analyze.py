#!/usr/bin/env python
"""Draw what teacher and students know: figures as PNG and SVG, their numbers as JSON.

tools/analyze.py entropy-segments output/Digits/EA-KD output/Digits/KD
tools/analyze.py weights output/Digits/EA-KD
tools/analyze.py tsne KD=output/Digits/KD EA-KD=output/Digits/EA-KD
tools/analyze.py landscape output/Digits/EA-KD/model_[0-9]*.pth --grid 41
tools/analyze.py dynamics output/Digits/EA-KD
tools/analyze.py detection output/Digits-Detection/EA-DKD-R18-R101

A RUN is [LABEL=]PATH: the folder of a run (its model_final.pth), or a checkpoint in it. The teacher
is that of the first run that has one, unless --teacher names a run.
"""

import argparse
import logging
import os
import sys

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from classification.analysis import load_networks
from classification.reports import landscape_of, segments_of, separation_of, weights_of
from eakd_det.analysis.detector_runs import analyze_detectors
from eakd_det.analysis.landscape import SIZES
from eakd_det.analysis.reports import report_dynamics
from eakd_det.analysis.runs import find_runs
from eakd_det.utils.errors import UserError


def entropy_segments(args, runs):
    yield segments_of(networks_of(args, runs))


def weights(args, runs):
    yield weights_of(networks_of(args, runs))


def tsne(args, runs):
    yield separation_of(networks_of(args, runs), num_images=args.num_images, seed=args.seed)


def landscape(args, runs):
    yield from landscape_of(
        networks_of(args, runs),
        size=args.grid,
        half_width=args.half_width,
        level=args.level,
        num_images=args.num_images,
        seed=args.seed,
    )


def dynamics(args, runs):
    yield report_dynamics(runs)


def detection(args, runs):
    if bool(args.val_json) != bool(args.val_images):
        raise UserError("--val-json and --val-images belong together.")
    yield from analyze_detectors(
        runs,
        config_file=args.config_file,
        teacher=teacher_of(args),
        val=(args.val_json, args.val_images) if args.val_json else None,
        clip=args.clip_boxes,
        num_points=args.num_objects,
        seed=args.seed,
    )


def networks_of(args, runs):
    """The classifiers that the command line names."""
    return load_networks(runs, config_file=args.config_file, teacher=teacher_of(args))


def teacher_of(args):
    return find_runs([args.teacher])[0] if args.teacher else None


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_segments_parser(commands)
    add_command(
        commands, "weights", weights, "how far w_EA adapts, to the teacher and to the student"
    )
    add_tsne_parser(commands)
    add_landscape_parser(commands)
    add_dynamics_parser(commands)
    add_detection_parser(commands)
    return parser.parse_args()


def add_segments_parser(commands):
    add_command(
        commands,
        "entropy-segments",
        entropy_segments,
        "accuracy of teacher and students in tenths of the test images, by entropy",
    )


def add_tsne_parser(commands):
    parser = add_command(
        commands, "tsne", tsne, "penultimate features in the plane, and how distinct classes are"
    )
    parser.add_argument(
        "--num-images", type=positive, default=2000, metavar="N", help="of the test; %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="of t-SNE; %(default)s")


def add_landscape_parser(commands):
    parser = add_command(
        commands, "landscape", landscape, "loss around the weights, its variance and Area@x"
    )
    parser.add_argument(
        "--grid",
        type=int,
        choices=SIZES,
        default=21,
        help="points of an axis; the coarser grids come first; %(default)s",
    )
    parser.add_argument(
        "--num-images",
        type=positive,
        default=1000,
        metavar="N",
        help="of the training; %(default)s",
    )
    parser.add_argument(
        "--level", type=float, default=1.6, metavar="X", help="of Area@x; %(default)s"
    )
    parser.add_argument(
        "--half-width",
        type=float,
        default=1.0,
        metavar="W",
        help="of the plane, in norms of the filters; %(default)s",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the directions; %(default)s")


def add_dynamics_parser(commands):
    add_command(
        commands,
        "dynamics",
        dynamics,
        "entropies and weights over the training, of classifiers and detectors",
        has_networks=False,
    )


def add_detection_parser(commands):
    parser = add_command(
        commands,
        "detection",
        detection,
        "of detectors: AP by entropy, segments and t-SNE of the objects' ROIs, and pictures of "
        "those with the highest weights",
    )
    parser.add_argument("--val-json", metavar="FILE", help="data in COCO format")
    parser.add_argument("--val-images", metavar="FOLDER")
    parser.add_argument("--clip-boxes", action="store_true", help="as in the training")
    parser.add_argument(
        "--num-objects", type=positive, default=2000, metavar="N", help="of t-SNE; %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="of t-SNE; %(default)s")


def add_command(commands, name, function, summary, *, has_networks=True):
    """A parser with what the commands share; `function(args, runs)` yields Reports."""
    parser = commands.add_parser(name, help=summary, description=summary)
    parser.set_defaults(function=function)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="[LABEL=]PATH")
    parser.add_argument(
        "--output-dir", metavar="FOLDER", help="`analysis` in the first run's folder by default"
    )
    if has_networks:
        parser.add_argument("--teacher", metavar="RUN", help="the teacher")
        parser.add_argument(
            "--config-file",
            default="",
            metavar="FILE",
            help="of checkpoints without a config.yaml beside them",
        )
    return parser


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def main():
    args = parse_arguments()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    runs = find_runs(args.runs)
    folder = args.output_dir or os.path.join(runs[0].folder, "analysis")
    for report in args.function(args, runs):  # the next one, if any, replaces its figures
        paths = report.write(folder, [run.label for run in runs])
        print(f"{report.table()}\n\n{chr(10).join(paths)}\n", flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
