"""Loading of YAML configs of plain values, without running code."""

import io
import re
from typing import Any

import yaml
from detectron2.config import CfgNode, downgrade_config, upgrade_config
from detectron2.config.compat import guess_version
from detectron2.utils.file_io import PathManager

from eakd_det.utils.errors import UserError

# Python expression of RetinaNet's anchor sizes in Detectron2's Base-RetinaNet.yaml, with any base
# sizes: three octave scales of each.
_ANCHOR_SIZES = re.compile(
    r'!!python/object/apply:eval \["\[\[x, x \* 2\*\*\(1\.0/3\), x \* 2\*\*\(2\.0/3\) ?\] '
    r'for x in \[([\d., ]+)\]\]"\]'
)
_PYTHON = "tag:yaml.org,2002:python/"


def read_yaml(path: str) -> dict[str, Any]:
    """Load a config file with its _BASE_ files.

    Every config is loaded here: by default Detectron2 uses yaml.unsafe_load, which runs code that
    a tag names.

    Raises:
        UserError: the file or a base is missing, is not YAML or not a config, or holds other than
            plain values; no code of it is run.
    """
    try:
        return _PlainYaml.load_yaml_with_base(path)
    except RecursionError as error:
        raise UserError(f"{path}: its _BASE_ files form a cycle.") from error


def merge_file(cfg: CfgNode, path: str) -> None:
    """Merge a config file as CfgNode.merge_from_file does, also one of VERSION 1.

    Raises:
        UserError: see `read_yaml`. yacs' errors about keys and values are not converted.
    """
    loaded = CfgNode(read_yaml(path))
    version = loaded.get("VERSION", None) or guess_version(loaded, path)
    if version == cfg.VERSION:
        cfg.merge_from_other_cfg(loaded)
        return
    if version not in range(1, cfg.VERSION):
        raise UserError(f"{path}: VERSION {version} of configs is unknown.")
    older = downgrade_config(cfg, to_version=version)
    older.merge_from_other_cfg(loaded)
    newer = upgrade_config(older)
    cfg.clear()
    cfg.update(newer)


class _PlainYaml(CfgNode):
    """CfgNode that only loads safe YAML, with errors that name the file."""

    @classmethod
    def _open_cfg(cls, filename: str) -> io.StringIO:
        with PathManager.open(filename, "r") as f:
            return io.StringIO(_ANCHOR_SIZES.sub(_plain_sizes, f.read()))

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict[str, Any]:
        try:
            loaded = super().load_yaml_with_base(filename, allow_unsafe=False)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"The config {filename} cannot be read: {error}") from error
        except yaml.YAMLError as error:
            raise UserError(_describe(filename, error)) from error
        except AssertionError as error:  # a base has a value where this file has a node
            raise UserError(f"{filename}: {error}") from error
        except (AttributeError, TypeError) as error:  # an empty file; _BASE_ with no path
            raise UserError(f"{filename} is not a config of keys and values.") from error
        if not isinstance(loaded, dict):
            raise UserError(f"{filename} is not a config of keys and values.")
        return loaded


def _plain_sizes(expression: re.Match) -> str:
    numbers = re.findall(r"\d+(?:\.\d+)?", expression[1])
    bases = [float(number) if "." in number else int(number) for number in numbers]
    return str([[x, x * 2 ** (1.0 / 3), x * 2 ** (2.0 / 3)] for x in bases])


def _describe(filename: str, error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.constructor.ConstructorError) and _PYTHON in str(error.problem):
        tag = error.problem.partition(_PYTHON)[2].strip("'")
        return (
            f"{filename} holds !!python/{tag} in line {error.problem_mark.line + 1}: a config may "
            "only have numbers, text and lists, since such tags can run code."
        )
    return f"{filename} is not valid YAML: {error}"
