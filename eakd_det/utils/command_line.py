"""Command-line frame of the tools: parsers, KEY VALUE pairs of a config, and errors in words.

It imports neither torch nor Detectron2, which takes seconds: a tool answers --help and mistakes in
its flags at once, and imports what it runs afterwards.
"""

from __future__ import annotations  # so that an old Python gets as far as `require_packages`

import argparse
import math
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from .environment import require_packages
from .errors import UserError

# KEY or NODE.KEY, and the keys in lower case of an open node.
_KEY = re.compile(r"[A-Z][A-Z0-9_]+|[A-Z][A-Z0-9_]*(\.[A-Z][A-Z0-9_]*)+(\.\w+)?")
KEY_AND_VALUES = ("KEY", "VALUE")  # metavar of a flag that takes a key and a list of its values
_OVERRIDE = re.compile(r"[+~]*[A-Za-z_][\w.]*=.*", re.DOTALL)  # of a Python config

# Flags that several tools have.
_FLAGS: dict[str, dict[str, Any]] = {
    "--config-file": {"required": True, "metavar": "FILE", "help": "config of the run"},
    "--resume": {"action": "store_true", "help": "continue from the last checkpoint"},
    "--overwrite": {
        "action": "store_true",
        "help": "remove the run in OUTPUT_DIR and start anew",
    },
    "--wandb": {
        "metavar": "PROJECT",
        "help": "also send TensorBoard's data to Weights & Biases",
    },
}
# The port differs from user to user. A process that is left over from an earlier run occupies it.
_PORT = 49152 + (os.getuid() if sys.platform != "win32" else 1) % 16384
# Flags of Detectron2's `default_argument_parser`, whose module imports torch.
_TRAINING_FLAGS: dict[str, dict[str, Any]] = {
    **{flag: _FLAGS[flag] for flag in ("--resume", "--overwrite", "--wandb")},
    "--config-file": {"default": "", "metavar": "FILE", "help": "config of the run"},
    "--eval-only": {"action": "store_true", "help": "evaluate, without training"},
    "--num-gpus": {"type": int, "default": 1, "help": "processes on this machine, each on a GPU"},
    "--num-machines": {"type": int, "default": 1, "help": "machines of the run"},
    "--machine-rank": {"type": int, "default": 0, "help": "number of this machine, from 0"},
    "--dist-url": {
        "default": f"tcp://127.0.0.1:{_PORT}",
        "help": "address at which the processes meet; default: %(default)s",
    },
}


class Parser(argparse.ArgumentParser):
    """ArgumentParser that reads a whole command line before it needs torch and Detectron2.

    Attributes:
        restarts: whether a Python without these continues in .venv.
    """

    restarts = False

    def parse_args(self, args=None, namespace=None):
        parsed = super().parse_args(args, namespace)
        require_packages(restart=self.restarts)
        return parsed


def make_parser(
    description: str | None, *flags: str, opts: str = "", has_processes: bool = False
) -> argparse.ArgumentParser:
    """Build the parser of a tool.

    Args:
        description: docstring of the tool, printed as it stands.
        flags: of `_FLAGS`.
        opts: help of the KEY VALUE pairs; empty for a tool without a config.
        has_processes: for `engine.launch`: Detectron2's flags, --overwrite and --wandb.
    """
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options = {flag: _FLAGS[flag] for flag in flags} | (_TRAINING_FLAGS if has_processes else {})
    for flag, keywords in options.items():
        parser.add_argument(flag, **keywords)
    if opts:
        parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help=opts)
    return parser


def add_data_flags(
    parser: argparse._ActionsContainer, *splits: str, clip: str = "as in the training"
) -> None:
    """Add --SPLIT-json and --SPLIT-images for each split, and --clip-boxes with its help `clip`."""
    for split in splits:
        parser.add_argument(f"--{split}-json", metavar="FILE", help="data in COCO format")
        parser.add_argument(f"--{split}-images", metavar="FOLDER")
    parser.add_argument("--clip-boxes", action="store_true", help=clip)


def data_sources(args: argparse.Namespace, *splits: str) -> dict[str, tuple[str, str]]:
    """Return split -> (JSON file, folder of images) of the splits that the command line names.

    Raises:
        UserError: a split has one of the two.
    """
    sources = {}
    for split in splits:
        paths = getattr(args, f"{split}_json"), getattr(args, f"{split}_images")
        if all(paths):
            sources[split] = paths
        elif any(paths):
            raise UserError(f"--{split}-json and --{split}-images belong together.")
    return sources


def positive(text: str) -> int:
    """Convert to an integer above 0, as argparse's "type"."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def positive_number(text: str) -> float:
    """Convert to a finite number above 0, as argparse's "type"."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def run(
    main: Callable[[argparse.Namespace], object],
    args: argparse.Namespace,
    *,
    stopped: str = "Stopped.",
) -> None:
    """Call `main(args)`; an error of the user, or Ctrl-C, ends the process with exit code 1.

    Args:
        main: of a tool that runs in this process alone; see `engine.launch` for several.
        args: of the command line.
        stopped: printed after Ctrl-C.
    """
    try:
        main(args)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"\n{stopped}")


def parse_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line of this process.

    Args:
        parser: with an argument "opts", the KEY VALUE pairs.
    """
    flags, options = split_options(parser, sys.argv[1:])
    args = parser.parse_args(flags)
    args.opts = [*options, *(args.opts or [])]
    return args


def _words_of(action: argparse.Action) -> int:
    """Return how many of the words after a flag are its values, also if they look like a KEY.

    store_true takes none, and a list ends at the next KEY; --vary takes a KEY first.
    """
    if isinstance(action.nargs, int):
        return action.nargs
    return int(action.nargs is None or action.metavar == KEY_AND_VALUES)


def split_options(
    parser: argparse.ArgumentParser, words: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Split a command line into flags with their values, and KEY VALUE pairs.

    argparse alone would take a flag behind a pair for a KEY, and a pair behind a flag that takes a
    list for a part of the list.

    Args:
        parser: knows the flags.
        words: of the command line. A word in capitals is a KEY, unless it is the value of a flag
            (of --vary, any word without a dot); `key=value` of a Python config stands for a pair.
    """
    values = {name: _words_of(a) for a in parser._actions for name in a.option_strings}
    varying = {
        name for a in parser._actions if a.metavar == KEY_AND_VALUES for name in a.option_strings
    }
    flags, options, left = [], [], deque(words)
    flag = ""  # whose list of values may go on
    while left:
        word = left.popleft()
        flag = word if word in values else flag
        if values.get(word):
            flags += [word, *(left.popleft() for _ in range(min(values[word], len(left))))]
        elif flag in varying and "." not in word:
            flags.append(word)
        elif _KEY.fullmatch(word):
            flag = ""
            has_value = left and left[0] not in values
            options += [word, *([left.popleft()] if has_value else [])]
        else:
            (options if _OVERRIDE.fullmatch(word) else flags).append(word)
    return flags, options
