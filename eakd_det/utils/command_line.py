"""Command-line frame of the tools: parsers, KEY VALUE pairs of a config, and errors in words."""

import argparse
import re
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from detectron2.config import CfgNode

from .errors import UserError

# NODE.KEY, and the keys in lower case of an open node.
_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z][A-Z0-9_]*)+(\.\w+)?")
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


def make_parser(
    description: str | None,
    *flags: str,
    opts: str = "",
    base: argparse.ArgumentParser | None = None,
) -> argparse.ArgumentParser:
    """Build the parser of a tool.

    Args:
        description: docstring of the tool, printed as it stands.
        flags: of `_FLAGS`.
        opts: help of the KEY VALUE pairs; empty for a tool without a config.
        base: the parser to extend, as Detectron2's `default_argument_parser()`.
    """
    parser = argparse.ArgumentParser() if base is None else base
    parser.description = description
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    for flag in flags:
        parser.add_argument(flag, **_FLAGS[flag])
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
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
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


def parse_arguments(parser: argparse.ArgumentParser, *configs: CfgNode) -> argparse.Namespace:
    """Parse the command line of this process.

    Args:
        parser: with an argument "opts", the KEY VALUE pairs.
        configs: with the defaults of all keys; a KEY without a node is one of them.
    """
    flags, options = split_options(parser, sys.argv[1:], *configs)
    args = parser.parse_args(flags)
    args.opts = [*options, *(args.opts or [])]
    return args


def split_options(
    parser: argparse.ArgumentParser, words: Sequence[str], *configs: CfgNode
) -> tuple[list[str], list[str]]:
    """Split a command line into flags with their values, and KEY VALUE pairs.

    argparse alone would take a flag behind a pair for a KEY, and a pair behind a flag that takes a
    list for a part of the list.

    Args:
        parser: knows the flags.
        words: of the command line. `key=value` of a Python config stands for a pair.
        configs: as in `parse_arguments`.
    """
    roots = {key for cfg in configs for key, value in cfg.items() if not isinstance(value, CfgNode)}
    takes_value = {  # store_true takes none, and a list ends at the next KEY
        name: action.nargs is None for action in parser._actions for name in action.option_strings
    }
    flags, options, left = [], [], deque(words)
    while left:
        word = left.popleft()
        if takes_value.get(word):
            flags += [word, *([left.popleft()] if left else [])]
        elif word in roots or _KEY.fullmatch(word):
            has_value = left and left[0] not in takes_value
            options += [word, *([left.popleft()] if has_value else [])]
        else:
            (options if _OVERRIDE.fullmatch(word) else flags).append(word)
    return flags, options
