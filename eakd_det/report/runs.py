"""What the folders of runs hold, read for a report."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eakd_det.analysis.metrics import METRICS, Series, read_metrics
from eakd_det.analysis.runs import Run, find_runs
from eakd_det.engine.run_record import NAME as RECORD
from eakd_det.utils.errors import UserError


@dataclass(frozen=True)
class RunFiles:
    """A run's folder, read.

    Attributes:
        run: its label and folder.
        config_text: config.yaml, as it stands there.
        config: what that says.
        metrics: name in metrics.json -> its values over the iterations.
        result: result.json, if the run has written one.
        record: run.json, likewise.
        group: name of the runs that differ from it in the seed alone; their lines are drawn as one.
    """

    run: Run
    config_text: str
    config: dict[str, Any]
    metrics: dict[str, Series]
    result: dict[str, Any]
    record: dict[str, Any]
    group: str

    def last(self, name: str) -> float | None:
        """The last value of a metric."""
        return self.metrics[name][-1][1] if self.metrics.get(name) else None

    @property
    def iterations(self) -> int:
        """Of which the loss is logged."""
        return self.metrics["total_loss"][-1][0] + 1 if "total_loss" in self.metrics else 0

    @property
    def parameters(self) -> int | None:
        """Of the student, if the run has noted them."""
        return self.record.get("parameters", self.result.get("parameters"))

    @property
    def seconds(self) -> tuple[float | None, bool]:
        """Of training, and whether they were counted; else they are summed up from the log."""
        if "seconds" in self.result:
            return self.result["seconds"], True
        total, before = 0.0, -1
        for iteration, seconds_each in self.metrics.get("time", []):
            total += seconds_each * (iteration - before)
            before = iteration
        return total or None, False


def find_folders(texts: list[str]) -> list[str]:
    """`[LABEL=]FOLDER` as given; for a folder that holds runs and is none, these runs."""
    found = []
    for text in texts:
        folder = Path(text)
        inside = sorted(path.parent for path in folder.glob(f"*/{METRICS}"))
        holds_runs = inside and not (folder / METRICS).exists()
        found += [str(path) for path in inside] if holds_runs else [text]
    return list(dict.fromkeys(found))


def read_runs(texts: list[str]) -> list[RunFiles]:
    """The runs that `[LABEL=]FOLDER` name.

    Raises:
        UserError: a folder is missing or is not that of a run, a file in it is broken, or two
            have the same label.
    """
    return [_read(run) for run in find_runs(find_folders(texts))]


def by_group(runs: list[RunFiles]) -> dict[str, list[RunFiles]]:
    """Runs that differ in the seed alone, together under their name."""
    groups: dict[str, list[RunFiles]] = {}
    for files in runs:
        groups.setdefault(files.group, []).append(files)
    return groups


def _read(run: Run) -> RunFiles:
    folder = Path(run.folder)
    metrics = read_metrics(run.folder)
    if not (folder / "config.yaml").exists():
        raise UserError(f"{folder} holds no config.yaml, which every run writes at its start.")
    text = (folder / "config.yaml").read_text()
    return RunFiles(
        run,
        text,
        _parse_config(folder / "config.yaml", text),
        metrics,
        result=_read_json(folder / "result.json"),
        record=_read_json(folder / RECORD),
        group=run.label,
    )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is broken: {error}.") from error


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader that reads what a Python config leaves of tuples and classes as plain values."""


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
        raise UserError(f"{path} is no YAML: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is not the config of a run.")
    return config
