"""Reading of the folders of runs for a report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from eakd_det.analysis.runs import Run, find_runs
from eakd_det.engine.run_record import NAME as RECORD
from eakd_det.sweep.find_kind import kind_of
from eakd_det.sweep.kinds import RunKind
from eakd_det.sweep.run_files import RunFiles
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import read_json


def find_folders(texts: list[str], kinds: Sequence[RunKind]) -> list[str]:
    """Return `[LABEL=]FOLDER` as given; for a folder that only holds runs, those runs."""
    found, logs = [], {kind.log for kind in kinds}
    for text in texts:
        folder = Path(text)
        inside = sorted({path.parent for log in logs for path in folder.glob(f"*/{log}")})
        holds_runs = inside and not any((folder / log).exists() for log in logs)
        found += [str(path) for path in inside] if holds_runs else [text]
    return list(dict.fromkeys(found))


def read_runs(texts: list[str], kinds: Sequence[RunKind]) -> list[RunFiles]:
    """Read the runs that `[LABEL=]FOLDER` name.

    Raises:
        UserError: a folder is missing or is not that of a run, a file in it is broken, or two
            have the same label.
    """
    return [_read(run, kinds) for run in find_runs(find_folders(texts, kinds))]


def by_group(runs: list[RunFiles]) -> dict[str, list[RunFiles]]:
    """Return name -> the runs that differ in the seed alone."""
    groups: dict[str, list[RunFiles]] = {}
    for files in runs:
        groups.setdefault(files.group, []).append(files)
    return groups


def _read(run: Run, kinds: Sequence[RunKind]) -> RunFiles:
    path = Path(run.folder, "config.yaml")
    if not path.exists():
        raise UserError(
            f"{run.folder} is not the folder of a run (it has no config.yaml), and no folder in it "
            "is one."
        )
    text = path.read_text()
    config = _parse_config(path, text)
    metrics, result = kind_of(config, kinds, path).read(run.folder)
    record = read_json(path.with_name(RECORD))
    return RunFiles(run, text, config, metrics, result, record, group=run.label)


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader that reads tuples and classes of a Python config as plain values."""


def _as_plain(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    return loader.construct_scalar(node)


_PlainLoader.add_multi_constructor("tag:yaml.org,2002:python/", _as_plain)


def _parse_config(path: Path, text: str) -> dict[str, Any]:
    try:
        config = yaml.load(text, _PlainLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is not the config of a run.")
    return config
