"""Merging of config files and KEY VALUE pairs, with messages for the user."""

import difflib
from collections.abc import Iterator
from functools import reduce

from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager

from eakd_det.distillers import DISTILLERS, method_settings
from eakd_det.utils.errors import UserError

from .defaults import detection_config
from .safe_yaml import merge_file


def load_config(path: str, options: list[str] = ()) -> CfgNode:
    """Merge a file, then KEY VALUE pairs, into the defaults of `detection_config`.

    Raises:
        UserError: see `merge_config` and `method_settings`.
    """
    cfg = detection_config()
    merge_config(cfg, path, options)
    method_settings(cfg.DISTILL, DISTILLERS)  # before data are read or a teacher is trained
    return cfg


def merge_config(cfg: CfgNode, path: str, options: list[str] = ()) -> None:
    """Merge a file, then KEY VALUE pairs, into a config.

    Raises:
        UserError: the file is not given, does not exist or holds more than plain values
            (`read_yaml`), a key does not exist (the message names the nearest one), or a value has
            the wrong type.
    """
    if not path:
        raise UserError("--config-file FILE is required.")
    if not PathManager.isfile(path):
        raise UserError(f"--config-file: there is no file {path!r}.")
    for source, merge in [
        (path, lambda: merge_file(cfg, path)),
        ("the command line", lambda: merge_options(cfg, options)),
    ]:
        try:
            merge()
        except UserError:
            raise
        except (AssertionError, KeyError, ValueError) as error:  # what yacs raises
            text = str(error.args[0]) if error.args else ""
            hint = _nearest_key(text, cfg)
            if "<class 'float'> vs. <class 'int'>" in text:
                hint = " Write the number with decimals, such as 4.0."
            raise UserError(f"{source}: {text}{hint}") from error


def merge_options(cfg: CfgNode, options: list[str]) -> None:
    """Merge KEY VALUE pairs of a command line, where 4 is accepted for 4.0.

    Raises:
        AssertionError, KeyError, ValueError: yacs' errors, and KeyError for an incomplete pair, or
            a node in place of a key.
    """
    known = list(_keys(cfg))
    if len(options) % 2:
        wrong = next((option for option in options[::2] if option not in known), options[-1])
        raise KeyError(f"expected KEY VALUE pairs, such as SOLVER.BASE_LR 0.01, at {wrong!r}")
    for key, value in zip(options[::2], options[1::2], strict=True):
        inner = next((name for name in known if name.startswith(f"{key}.")), None)
        if inner and not value.lstrip().startswith("{"):
            raise KeyError(f"{key} is a node of keys: name one of them, such as {inner}")
    cfg.merge_from_list(_with_decimals(options, cfg))


def _with_decimals(options: list[str], cfg: CfgNode) -> list[str]:
    """Write whole numbers as floats for keys whose value is a float, as yacs requires it."""
    keys = set(_keys(cfg))
    values = []
    for key, value in zip(options[::2], options[1::2], strict=False):
        if key in keys and value.lstrip("-").isdigit():
            *nodes, leaf = key.split(".")
            is_float = isinstance(reduce(getattr, nodes, cfg)[leaf], float)
            value = f"{value}.0" if is_float else value
        values += [key, value]
    return values + list(options[len(values) :])


def _nearest_key(text: str, cfg: CfgNode) -> str:
    key = text.removeprefix("Non-existent config key: ").removeprefix("Non-existent key: ")
    near = [] if key == text else difflib.get_close_matches(key, _keys(cfg), 1)
    return f"; did you mean {near[0]}?" if near else ""


def _keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
