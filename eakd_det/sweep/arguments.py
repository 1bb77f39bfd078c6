"""Arguments of a sweep's command line, parsed without importing torch or Detectron2."""

import argparse
from collections.abc import Sequence

from eakd_det.utils import command_line

FROM_CSV_DIR, REPEAT_DIR = "output/tables", "output/repeat"  # defaults of --output-dir
# Data of detectors, as tools/train_net.py takes them.
DATA_FLAGS = ("--train-json", "--train-images", "--val-json", "--val-images")


def parse(
    description: str,
    *,
    seeds: Sequence[int] = (),
    output_dir: str = "output/sweep",
    data: bool = True,
) -> argparse.Namespace:
    """Parse the command line of this process.

    Args:
        description: docstring of the tool.
        seeds, output_dir: defaults of --seeds and --output-dir.
        data: whether there are flags for the data of detectors.
    """
    parser = command_line.make_parser(description, opts="KEY VALUE pairs for every run")
    parser.add_argument("--configs", nargs="+", default=[], metavar="FILE", help="configs to train")
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[],
        metavar="N",
        help="seeds of each config",
    )
    parser.add_argument(
        "--jobs",
        type=command_line.positive,
        default=1,
        metavar="N",
        help="number of runs at a time; 1 by default",
    )
    _add_launcher(parser)
    _add_tables(parser, output_dir)
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="retrain runs whose config, options or teacher have changed",
    )
    for flag in DATA_FLAGS if data else ():
        kind = "FILE" if flag.endswith("json") else "FOLDER"
        parser.add_argument(
            flag, metavar=kind, help="your own data for detectors, as for train_net.py"
        )
    parser.add_argument(
        "--status",
        action="store_true",
        help="print which runs are done, are trained or have failed, from any machine",
    )
    args = command_line.parse_arguments(parser)
    _check_modes(parser, args)
    if not args.output_dir:
        from_file = FROM_CSV_DIR if args.from_csv else REPEAT_DIR if args.repeat else ""
        args.output_dir = from_file or output_dir
    args.seeds = args.seeds or ([] if args.repeat else list(seeds))
    is_from_file = args.table_only or args.from_csv or args.repeat
    needs_grid = not is_from_file and (args.configs or not args.status)
    if needs_grid and not (args.configs and args.seeds):
        parser.error("name --configs and --seeds, or --table-only or --status or --from-csv")
    if args.detach and args.launcher == "local":
        parser.error("--detach: this process trains the runs of --launcher local")
    if args.detach and args.launcher == "ray":
        parser.error(
            "--detach: Ray ends the runs of a sweep that has exited. Keep the sweep running "
            'instead: "nohup COMMAND &", or "ray job submit --no-wait -- COMMAND".'
        )
    for launcher, flag, is_given in (
        ("local", "--jobs", args.jobs != 1),
        ("slurm", "--slurm", args.slurm),
        ("ray", "--ray-address", args.ray_address),
    ):
        if is_given and args.launcher != launcher:
            parser.error(f"{flag} belongs to --launcher {launcher}")
    return args


def _add_tables(parser: argparse.ArgumentParser, output_dir: str) -> None:
    """Add the options on tables, and on the files that they are in."""
    parser.add_argument(
        "--output-dir",
        help=f"default: {output_dir}; {FROM_CSV_DIR} with --from-csv, {REPEAT_DIR} with --repeat",
    )
    parser.add_argument(
        "--pairs", nargs="+", type=_pair, default=[], metavar="A:B", help="also compare A with B"
    )
    parser.add_argument(
        "--table-only",
        action="store_true",
        help="write the tables of finished runs, without training",
    )
    parser.add_argument(
        "--from-csv",
        nargs="+",
        default=[],
        metavar="FILE",
        help="write the tables of the runs in the runs.csv of sweeps, without training",
    )
    parser.add_argument(
        "--repeat",
        nargs=2,
        default=[],
        metavar=("FILE", "METHOD"),
        help="train the runs of a method in a runs.csv again; METHOD/MODELS if it has several",
    )


def _check_modes(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options that --from-csv and --repeat would ignore."""
    given = {
        **{"--configs": args.configs, "--seeds": args.seeds, "--pairs": args.pairs},
        **{"--table-only": args.table_only, "--status": args.status, "--repeat": args.repeat},
        "KEY VALUE": args.opts,
    }
    for mode, is_on, taken in (
        ("--from-csv", args.from_csv, {"--pairs"}),
        ("--repeat", args.repeat, {"--seeds", "--repeat"}),
    ):
        wrong = [flag for flag, value in given.items() if value and flag not in taken]
        if is_on and wrong:
            parser.error(f"{' and '.join(wrong)}: not with {mode}")


def _add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add the options on where the runs are trained."""
    parser.add_argument(
        "--gpus-per-run",
        type=command_line.positive,
        default=1,
        metavar="N",
        help="processes of each run, each with a GPU if there are any; 1 by default",
    )
    parser.add_argument(
        "--launcher",
        choices=["local", "slurm", "ray"],
        default="local",
        help="train on this machine (default), a SLURM cluster or a Ray cluster",
    )
    parser.add_argument(
        "--slurm",
        action="append",
        type=_option,
        default=[],
        metavar="KEY=VALUE",
        help="option of sbatch, as partition=gpu; can be repeated",
    )
    parser.add_argument(
        "--ray-address",
        default="",
        metavar="ADDRESS",
        help='of a running Ray cluster, or "auto"; starts one on this machine by default',
    )
    parser.add_argument(
        "--detach",
        action="store_true",
        help="submit the runs to the cluster and exit",
    )


def _option(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _pair(text: str) -> tuple[str, str]:
    method, colon, other = text.partition(":")
    if not (method and colon and other):
        raise argparse.ArgumentTypeError(f"{text!r} is not METHOD:METHOD")
    return method, other
