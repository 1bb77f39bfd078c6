#!/usr/bin/env python
"""Analyse runs beside their teacher: figures as PNG and SVG, their numbers as JSON.

tools/analyze.py entropy-segments output/Digits/EA-KD output/Digits/KD
tools/analyze.py weights output/Digits/EA-KD
tools/analyze.py confusions output/Digits/EA-KD
tools/analyze.py calibration output/Digits/EA-KD
tools/analyze.py tsne KD=output/Digits/KD EA-KD=output/Digits/EA-KD
tools/analyze.py landscape output/Digits/EA-KD/model_[0-9]*.pth --grid 41
tools/analyze.py dynamics output/Digits/EA-KD
tools/analyze.py detection output/Digits-Detection/EA-DKD-R18-R101

A RUN is [LABEL=]PATH: the folder of a run (its model_final.pth is used), or a checkpoint in it. The
teacher is that of the first run that has one, or --teacher. `analyze.py COMMAND --help` lists the
options of a command.
"""

import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, installed or not

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from eakd_det.analysis.commands import COMMANDS
from eakd_det.utils import command_line


def parse_arguments():
    parser = command_line.make_parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, command in COMMANDS.items():
        own = commands.add_parser(name, help=command.summary, description=command.summary)
        own.add_argument("runs", nargs="+", metavar="RUN", help="[LABEL=]PATH")
        own.add_argument(
            "--output-dir", metavar="FOLDER", help="analysis/ in the first run's folder by default"
        )
        for flag, keywords in command.options.items():
            own.add_argument(flag, **keywords)
    return parser.parse_args()


def check_kinds(runs, command, config_file, kinds):
    """Raise UserError if a run is of a family that does not offer the command."""
    from eakd_det.config.safe_yaml import read_yaml
    from eakd_det.sweep.find_kind import kind_of
    from eakd_det.utils.errors import UserError

    for path in [run.config_file(config_file) for run in runs]:
        kind = kind_of(read_yaml(path), kinds, path)
        if command not in kind.analyses:
            offered = ", ".join(kind.analyses) or "none"
            raise UserError(f"{path} is the config of a {kind.noun}; its commands are: {offered}.")


def main(args):
    from classification.runs import Classifiers
    from eakd_det.analysis.runs import find_runs
    from eakd_det.sweep.detectors import Detectors
    from llm.runs import LanguageModels

    kinds = (LanguageModels(), Classifiers(), Detectors())
    args = vars(args)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    command, runs = args.pop("command"), find_runs(args.pop("runs"))
    folder = args.pop("output_dir") or os.path.join(runs[0].folder, "analysis")
    if COMMANDS[command].needs_networks:
        check_kinds(runs, command, args["config_file"], kinds)
    analyses = {name: function for kind in kinds for name, function in kind.analyses.items()}
    for result in analyses[command](runs, **args):  # a later one replaces its figures
        paths = result.write(folder, [run.label for run in runs])
        print(f"{result.table()}\n\n{chr(10).join(paths)}\n", flush=True)


if __name__ == "__main__":
    command_line.run(main, parse_arguments())
