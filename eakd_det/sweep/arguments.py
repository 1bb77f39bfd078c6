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
    _add_grid(parser)
    _add_launcher(parser)
    _add_tables(parser, output_dir)
    for flag in DATA_FLAGS if data else ():
        kind = "FILE" if flag.endswith("json") else "FOLDER"
        parser.add_argument(
            flag, metavar=kind, help="your own data for detectors, as for train_net.py"
        )
    args = command_line.parse_arguments(parser)
    _check_modes(parser, args)
    _check_launcher(parser, args)
    args.vary = _only_lever(parser, args.vary)
    if not args.output_dir:
        from_file = FROM_CSV_DIR if args.from_csv else REPEAT_DIR if args.repeat else ""
        args.output_dir = from_file or output_dir
    args.seeds = args.seeds or ([] if args.repeat else list(seeds))
    is_from_file = args.table_only or args.from_csv or args.repeat
    needs_grid = not is_from_file and (args.configs or not args.status)
    if needs_grid and not (args.configs and args.seeds):
        others = "--table-only, --status, --from-csv or --repeat"
        parser.error(f"name --configs and --seeds, or {others}")
    return args


def _add_grid(parser: argparse.ArgumentParser) -> None:
    """Add the options on the runs that are trained."""
    parser.add_argument("--configs", nargs="+", default=[], metavar="FILE", help="configs to train")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[], metavar="N", help="seeds of each config"
    )
    parser.add_argument(
        "--vary",
        nargs="+",
        action="append",
        default=[],
        metavar=command_line.KEY_AND_VALUES,
        help="train each config with each value of a key",
    )
    parser.add_argument(
        "--jobs",
        type=command_line.positive,
        default=1,
        metavar="N",
        help="number of runs at a time; 1 by default",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="retrain runs whose config, options or teacher have changed",
    )
    parser.add_argument(
        "--status",
        action="store_true",
        help="print which runs are done, are trained or have failed, from any machine",
    )


def _only_lever(parser: argparse.ArgumentParser, given: Sequence[list[str]]) -> list[str]:
    """Return KEY VALUE ... of the only --vary; empty without one."""
    if len(given) > 1:
        parser.error("--vary: a sweep varies one key")
    if any(len(words) < 2 for words in given):
        parser.error(f"--vary {given[0][0]}: name the values, as in --vary KEY 1 2 3")
    return given[0] if given else []


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
    """Refuse options that --from-csv, --repeat and --table-only would ignore."""
    given = [
        f"--{name.replace('_', '-')}"
        for name, value in vars(args).items()
        if name != "opts" and value != parser.get_default(name)
    ]
    refused = {
        "--from-csv": {*given} - {"--from-csv", "--pairs", "--output-dir"},
        "--repeat": {"--configs", "--pairs", "--table-only", "--status", "--vary"},
        "--table-only": {"--vary"},
    }
    for mode, flags in refused.items():
        wrong = [flag for flag in given if flag in flags]
        if mode in given and wrong:
            parser.error(f"{' and '.join(wrong)}: not with {mode}")
    words = " ".join(args.opts)
    if words and args.from_csv:
        parser.error(f"{words}: not with --from-csv")
    if words and args.repeat:
        parser.error(f"{words}: not with --repeat; a METHOD that has spaces needs quotes")


def _check_launcher(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options that belong to another launcher."""
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
        "--detach", action="store_true", help="submit the runs to the cluster and exit"
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
