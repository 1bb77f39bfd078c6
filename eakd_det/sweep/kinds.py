"""What sweeps of detectors and of classifiers differ in."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from eakd_det.config.safe_yaml import read_yaml
from eakd_det.utils.errors import UserError

from .names import addition, method_of

FIRST = "classifiers"  # what a sweep.json is of that says nothing: for long there was no other kind


class SweepKind(ABC):
    """One kind of runs.

    Attributes:
        title: of several; noted in sweep.json.
        script: of the folder tools/, which trains a run and leaves result.json.
        metrics: key of result.json -> what it is called; the first is the main one, of which
            "teacher_<key>" may be the teacher's.
        note: on the figures, for the tables.
        no_matter: keys that change nothing in what a run gives.
        flags: of the script, which name data.
    """

    title: str
    script: str
    metrics: dict[str, str]
    note: str
    no_matter: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def main(self) -> str:
        """The key of the main metric."""
        return next(iter(self.metrics))

    def describe(self, result: dict[str, Any]) -> str:
        """The figures of result.json in a line."""
        return ", ".join(f"{name} {result[key]:.2f}" for key, name in self.metrics.items())

    @abstractmethod
    def is_kind_of(self, config: dict[str, Any]) -> bool:
        """Whether a config file, with its _BASE_ files, says such a run."""

    @abstractmethod
    def defaults(self) -> CfgNode:
        """Every key with its default."""

    @abstractmethod
    def load(self, file: str, options: list[str]) -> CfgNode:
        """The config of a file and KEY VALUE pairs; a UserError if something is wrong."""

    @abstractmethod
    def split(self, path: Path) -> tuple[str, str]:
        """Method and models as the path of a config has them: the folders of its runs."""

    @abstractmethod
    def models(self, cfg: CfgNode) -> str:
        """The student's network with its teacher's, or a network alone, as tables call them."""

    def names(self, path: Path, cfg: CfgNode) -> tuple[str, str]:
        """Method and models of a config, as tables call them.

        Raises:
            UserError: there is no config of its teacher.
        """
        (method, networks), models = self.split(path), self.models(cfg)
        return method_of(cfg.DISTILL, path, method), models + (addition(networks, models) or "")

    @abstractmethod
    def dataset(self, cfg: CfgNode) -> str:
        """What a run is tested on."""

    @abstractmethod
    def missing_teacher(self, cfg: CfgNode) -> str:
        """The config file of a teacher whose weights are yet to be trained, or nothing."""

    @abstractmethod
    def teacher_files(self, cfg: CfgNode) -> tuple[str, str]:
        """Config file and weights of a run's teacher, each empty where there is none."""

    @abstractmethod
    def teacher_arguments(self, cfg: CfgNode, arguments: list[str]) -> list[str]:
        """Arguments of the script that train the missing teacher of a run with that config."""

    @abstractmethod
    def published(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """What a paper reports for a run: "mean", "std" (or None) and "source"."""


def kind_of_configs(files: Sequence[str], kinds: Sequence[SweepKind]) -> SweepKind:
    """The kind of all config files.

    Raises:
        UserError: one is missing or no YAML, or they are of several kinds.
    """
    found = {}
    for file in files:
        if not Path(file).is_file():
            raise UserError(f"--configs: there is no file {file!r}.")
        if Path(file).suffix not in (".yaml", ".yml"):
            raise UserError(f"--configs: {file} is no YAML config, and a sweep takes no other.")
        config = read_yaml(file)
        found[next(kind for kind in kinds if kind.is_kind_of(config))] = file
    if len(found) > 1:
        lines = [f"  {file}: {kind.title}" for kind, file in found.items()]
        raise UserError("\n".join(["A sweep is of runs of one kind, and here are:", *lines]))
    return next(iter(found))


def kind_of_folder(output_dir: str, kinds: Sequence[SweepKind]) -> SweepKind:
    """The kind of the runs of a sweep.

    Raises:
        UserError: there is none, or they are of several kinds.
    """
    records = Path(output_dir).glob("*/*/seed*/sweep.json")
    titles = {json.loads(path.read_text()).get("kind", FIRST) for path in records}
    if len(titles) != 1:
        what = f"runs of several kinds: {', '.join(sorted(titles))}" if titles else "no run"
        raise UserError(f"{output_dir} holds {what}.")
    return next(kind for kind in kinds if kind.title in titles)
