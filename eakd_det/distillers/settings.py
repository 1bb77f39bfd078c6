"""Node DISTILL of a config: options of the methods, with defaults in signatures; pairs of names."""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode

from eakd_det.utils.errors import UserError

from .ea import BACKGROUND_WEIGHTS, EA_MODES, NO_EA


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
        UserError: a method is unknown; see `check_ea`.
    """
    _check_choices("DISTILL.METHODS", node.METHODS, distillers)
    ea = {**NO_EA, **_lower_keys(node.EA)}  # BACKGROUND is a key of detectors alone
    check_ea(ea, node.METHODS)
    return {"methods": {name: _lower_keys(node[name]) for name in node.METHODS}, "ea": ea}


def check_ea(ea: Mapping[str, Any], methods: Collection[str]) -> None:
    """Check the options of the EA weight.

    Raises:
        UserError: the mode or the value for background is unknown, or background is set apart
            without the EA weight.
    """
    background = ea["background"]
    _check_choices("DISTILL.EA.MODE", (ea["mode"],), EA_MODES)
    _check_choices("DISTILL.EA.BACKGROUND", (background,), BACKGROUND_WEIGHTS)
    if methods and not ea["enabled"] and background != NO_EA["background"]:
        raise UserError(
            f"DISTILL.EA.BACKGROUND {background} has no effect with DISTILL.EA.ENABLED False: set "
            "that to True (DISTILL.EA.MODE matched then gives all foreground samples one weight), "
            f"or BACKGROUND to {NO_EA['background']}."
        )


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
