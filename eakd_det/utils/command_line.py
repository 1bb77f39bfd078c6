"""Command lines of the tools: flags, and the KEY VALUE pairs of a config anywhere among them."""

import argparse
import re
import sys
from collections import deque
from collections.abc import Sequence

from detectron2.config import CfgNode

# NODE.KEY, and the keys in lower case of an open node.
_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z][A-Z0-9_]*)+(\.\w+)?")
_OVERRIDE = re.compile(r"[+~]*[A-Za-z_][\w.]*=.*", re.DOTALL)  # of a Python config


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
    """The flags of a command line with their values, and its KEY VALUE pairs.

    argparse alone would take a flag behind a pair for a KEY, and a pair behind a flag that takes a
    list for a part of the list.

    Args:
        parser: knows the flags.
        words: of the command line. `key=value` of a Python config stands for a pair.
        configs: as `parse_arguments` takes them.
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
