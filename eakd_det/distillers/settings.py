"""Node DISTILL of a config: options of the methods, with defaults in signatures; pairs of names."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from detectron2.config import CfgNode

from eakd_det.utils.errors import UserError

from .ea import EA_MODES


def scalar_defaults(function: Callable, *, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the keyword-only parameters of `function` with their defaults, as config options."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in leave_out
    }


def method_settings(node: CfgNode, distillers: Iterable[str]) -> dict[str, Any]:
    """Read the node DISTILL.

    Returns:
        "methods", name -> options, and "ea", the options of the EA weight; keys in lower case.

    Raises:
        UserError: a method or the EA mode is unknown.
    """
    _check_choices("DISTILL.METHODS", node.METHODS, distillers)
    _check_choices("DISTILL.EA.MODE", (node.EA.MODE,), EA_MODES)
    return {
        "methods": {name: _lower_keys(node[name]) for name in node.METHODS},
        "ea": _lower_keys(node.EA),
    }


def name_pair(key: str, entry: Any, example: str) -> tuple[str, str]:
    """Return an element of a config key as a student's and its teacher's name.

    Args:
        entry: a pair of names, or one name for both.
        example: a pair, for the message.

    Raises:
        UserError: `entry` is neither.
    """
    names = (entry, entry) if isinstance(entry, str) else entry
    is_pair = isinstance(names, Sequence) and len(names) == 2
    if not (is_pair and all(isinstance(name, str) for name in names)):
        raise UserError(
            f"{key}: {entry!r} is neither a name nor a pair of the student's and the teacher's "
            f"name, such as {example}."
        )
    return names[0], names[1]


def _check_choices(key: str, values: Iterable[str], choices: Iterable[str]) -> None:
    for value in values:
        if value not in choices:
            raise UserError(f"{key}: {value!r} is unknown; choose from {', '.join(choices)}.")


def _lower_keys(node: CfgNode) -> dict[str, Any]:
    return {key.lower(): value for key, value in node.items()}
