"""The kind of a config, of several, or of a sweep's runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from eakd_det.config.safe_yaml import read_yaml
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import read_json

from .kinds import FIRST, Config, RunKind


def kind_of(config: Config, kinds: Sequence[RunKind], path: str | Path) -> RunKind:
    """Return the kind of a config.

    Raises:
        UserError: it is of none of them; `path` is that of the config, for the message.
    """
    for kind in kinds:
        if kind.is_kind_of(config):
            return kind
    nouns = " or a ".join(kind.noun for kind in kinds)
    raise UserError(f"{path} is not the config of a {nouns}.")


def common_kind(found: Mapping[str, RunKind], what: str) -> RunKind:
    """Return the only kind of several files or folders.

    Args:
        found: file or folder -> its kind.
        what: "sweep" or "report", for the message.

    Raises:
        UserError: there are several.
    """
    if len(set(found.values())) > 1:
        lines = [f"  {path}: {kind.title}" for path, kind in found.items()]
        raise UserError(
            "\n".join([f"The runs of a {what} must be of one kind, but there are:", *lines])
        )
    return next(iter(found.values()))


def kind_of_configs(files: Sequence[str], kinds: Sequence[RunKind]) -> RunKind:
    """Return the kind of all config files.

    Raises:
        UserError: one is missing or no YAML, or they are of several kinds.
    """
    for file in files:
        if not Path(file).is_file():
            raise UserError(f"--configs: there is no file {file!r}.")
        if Path(file).suffix not in (".yaml", ".yml"):
            raise UserError(f"--configs: {file} is not a YAML config; a sweep needs YAML.")
    return common_kind({file: kind_of(read_yaml(file), kinds, file) for file in files}, "sweep")


def kind_of_folder(output_dir: str, kinds: Sequence[RunKind]) -> RunKind:
    """Return the kind of the runs of a sweep.

    Raises:
        UserError: there is none, or they are of several kinds.
    """
    records = Path(output_dir).glob("*/*/seed*/sweep.json")
    titles = {read_json(path).get("kind", FIRST) for path in records}
    if len(titles) != 1:
        what = f"runs of several kinds: {', '.join(sorted(titles))}" if titles else "no run"
        raise UserError(f"{output_dir} holds {what}.")
    return next(kind for kind in kinds if kind.title in titles)
