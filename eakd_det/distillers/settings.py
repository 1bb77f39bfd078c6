"""What the node DISTILL of a config says, as a model takes it."""

from collections.abc import Iterable
from typing import Any

from detectron2.config import CfgNode

from eakd_det.utils.errors import UserError

from .methods import EA_MODES


def method_settings(node: CfgNode, distillers: Iterable[str]) -> dict[str, Any]:
    """From the node DISTILL: "methods", name -> options, and "ea", the options of the EA weight.

    Raises:
        UserError: there is no such method or EA mode.
    """
    _check_choices("DISTILL.METHODS", node.METHODS, distillers)
    _check_choices("DISTILL.EA.MODE", (node.EA.MODE,), EA_MODES)
    return {
        "methods": {name: _lower_keys(node[name]) for name in node.METHODS},
        "ea": _lower_keys(node.EA),
    }


def _check_choices(key: str, values: Iterable[str], choices: Iterable[str]) -> None:
    for value in values:
        if value not in choices:
            raise UserError(f"{key}: {value!r} is unknown; choose from {', '.join(choices)}.")


def _lower_keys(node: CfgNode) -> dict[str, Any]:
    return {key.lower(): value for key, value in node.items()}
