"""Values of config keys that flags of the command line stand for, and the table that shows them."""

from collections.abc import Iterable
from functools import reduce
from typing import Any, NamedTuple

from detectron2.config import CfgNode


class Choice(NamedTuple):
    """A value that a flag sets, and the reason for it in a few words."""

    key: str
    value: Any
    why: str


def as_options(choices: Iterable[Choice]) -> list[str]:
    """Return the KEY VALUE pairs of choices, for `load_config` and `merge_options`."""
    return [word for choice in choices for word in (choice.key, str(choice.value))]


def choices_table(cfg: CfgNode, choices: Iterable[Choice], options: list[str]) -> str:
    """Return lines of key, value and reason, with the values of the run.

    Args:
        cfg: final config of the run.
        choices: of its flags.
        options: KEY VALUE pairs of its command line, which precede the choices.
    """
    given = set(options[::2])
    rows = [
        (key, str(value_of(cfg, key)), "set by hand" if key in given else why)
        for key, _, why in choices
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"  {key:{widths[0]}}  {value:{widths[1]}}  {why}" for key, value, why in rows]
    return "\n".join(["Chosen for this run; KEY VALUE pairs set other values:", *lines])


def value_of(cfg: CfgNode, key: str) -> Any:
    """Return the value of a key such as "SOLVER.BASE_LR"."""
    return reduce(lambda node, name: node[name], key.split("."), cfg)
