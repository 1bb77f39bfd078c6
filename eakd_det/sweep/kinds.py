"""The interface that sweep, report and analysis have to a family of runs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from eakd_det.analysis.metrics import METRICS, Series, read_metrics
from eakd_det.analysis.results import AnalysisResult
from eakd_det.utils.files import read_json
from eakd_det.utils.output_dir import TRAINER_FILES, OutputFiles

from .names import addition, method_name, method_of
from .published import Published, find_published
from .run_files import RunFiles

FIRST = "classifiers"  # kind of a sweep.json without "kind": for long there was no other one
ARROW = " → "  # of "teacher → student"

Config = Mapping[str, Any]  # as config.yaml has it, or a CfgNode


class RunKind(ABC):
    """A family of runs: detectors, classifiers, language models.

    Attributes:
        title: plural of the models, noted in sweep.json.
        noun: singular of it.
        script: file of tools/ that trains a run and leaves result.json.
        arguments: flags of the script in every run of a sweep.
        flags: flags of the script that name data.
        seed_key: of the config.
        metrics: key of result.json -> title in a sweep's tables; the first is the main metric, and
            "teacher_<key>" of it may be the teacher's.
        note: on the metrics, for the tables.
        no_matter: nodes and keys of a config that do not change the trained model.
        weights: glob patterns of an unfinished run's files that are worth keeping.
        columns: of a report's table, in percent; the first is the main metric.
        log: file by which a folder is known to be a run's.
        papers: published.yaml of the family (`eakd_det.sweep.published`).
        analyses: command of tools/analyze.py -> function of the list of runs, with the command's
            options as keywords. Where it gives several results, a later one replaces figures of
            the same name.
    """

    title: str
    noun: str
    script: str
    arguments: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    seed_key: str = "SEED"
    metrics: dict[str, str]
    note: str
    no_matter: tuple[str, ...] = ()
    weights: tuple[str, ...] = ("*.pth",)
    columns: tuple[str, ...]
    log: str = METRICS
    papers: Path
    analyses: Mapping[str, Callable[..., Iterable[AnalysisResult]]] = {}

    # Configs.

    @abstractmethod
    def is_kind_of(self, config: Config) -> bool:
        """Return whether a config file, with its _BASE_ files, is one of this family."""

    @abstractmethod
    def load(self, file: str, options: list[str]) -> CfgNode:
        """Load a config file and KEY VALUE pairs; raise UserError if something is wrong."""

    @abstractmethod
    def dataset(self, config: Config) -> str:
        """Return the name of the test set."""

    @abstractmethod
    def networks(self, config: Config) -> tuple[str, str]:
        """Return the names of teacher and student; the teacher's is empty without distillation."""

    def pair(self, config: Config) -> str:
        """Return "teacher → student", or the name of a student alone."""
        return ARROW.join(filter(None, self.networks(config)))

    def distillation(self, config: Config) -> dict[str, Any]:
        """Return the node DISTILL."""
        return config["DISTILL"]

    def method(self, config: Config) -> str:
        """Return the method's name in tables, as "EA-DKD+LS"; empty without distillation."""
        return method_name(self.distillation(config))

    def seed(self, config: Config) -> int:
        """Return the seed of a run."""
        return reduce(lambda node, key: node[key], self.seed_key.split("."), config)

    def published(self, config: Config) -> Published | None:
        """Find what a paper reports for the recipe, networks and method of a config."""
        return find_published(self.papers, config, self.networks(config), self.method(config))

    # Sweeps.

    @property
    def main(self) -> str:
        """Key of the main metric."""
        return next(iter(self.metrics))

    @property
    def files(self) -> OutputFiles:
        """Files that a run leaves in OUTPUT_DIR."""
        return TRAINER_FILES

    def describe(self, result: dict[str, Any]) -> str:
        """Return the metrics of result.json in a line."""
        return ", ".join(f"{name} {result[key]:.2f}" for key, name in self.metrics.items())

    def measured(self, results: Sequence[dict[str, Any]]) -> "RunKind":
        """Return this kind with the metrics that all results have."""
        return self

    def is_current(self, result: dict[str, Any], cfg: CfgNode) -> bool:
        """Return whether a finished run was evaluated as its config says now."""
        return True

    def identity(self, cfg: CfgNode, gpus: int) -> list[str]:
        """Return texts that identify a run beside its config and options, as its data's name.

        Args:
            cfg: of the run.
            gpus: processes of the training.
        """
        return []

    @abstractmethod
    def split(self, path: Path) -> tuple[str, str]:
        """Return method and models as the path of a config has them: the folders of its runs."""

    @abstractmethod
    def models(self, cfg: CfgNode) -> str:
        """Return the student's network with its teacher's, or one network, for a sweep's tables."""

    def names(self, path: Path, cfg: CfgNode) -> tuple[str, str]:
        """Return method and models of a config for a sweep's tables."""
        (method, networks), models = self.split(path), self.models(cfg)
        return method_of(cfg.DISTILL, path, method), models + (addition(networks, models) or "")

    @abstractmethod
    def sources(self, cfg: CfgNode) -> list[tuple[str, str]]:
        """Return config file and weights of each model that a run learns from or starts with.

        One of the two may be empty.
        """

    @abstractmethod
    def missing(self, cfg: CfgNode) -> dict[str, str]:
        """Return config file -> OUTPUT_DIR of the `sources` that are yet to be trained."""

    def separate_sources(self, cfg: CfgNode, varied: CfgNode, name: str) -> list[str]:
        """Return KEY VALUE pairs with which a run has sources of its own, where it needs them.

        Args:
            cfg: of the run without its varied key.
            varied: with the key, which may act on the training of a source.
            name: distinguishes its folder from those of the key's other values.
        """
        return []

    @abstractmethod
    def source_arguments(self, file: str, cfg: CfgNode, arguments: list[str]) -> list[str]:
        """Return the script's arguments that train a missing source.

        Args:
            file: config of the source.
            cfg, arguments: of a run that needs it.
        """

    def command(self, script: str, arguments: list[str], gpus: int) -> list[str]:
        """Return the script with the arguments of a run, for `gpus` processes on one machine."""
        # Two runs on a machine would otherwise meet at one port.
        several = ["--num-gpus", str(gpus), "--dist-url", "auto"] if gpus > 1 else []
        return [script, *several, *arguments]

    # Reports.

    def read(self, folder: str) -> tuple[dict[str, Series], dict[str, Any]]:
        """Read the metrics over the iterations, and result.json; empty if there is none.

        Raises:
            UserError: a file is broken, or the metrics are missing.
        """
        return read_metrics(folder), read_json(Path(folder, "result.json"))

    @abstractmethod
    def figures(self, files: RunFiles) -> dict[str, float]:
        """Return column -> the final value of a run, in percent."""

    def per_class(self, files: RunFiles) -> dict[str, float | None]:
        """Return class -> the main metric in percent; empty if the run has not noted it."""
        return {}

    @abstractmethod
    def curve(self, files: RunFiles) -> Series:
        """Return the main metric over the iterations."""

    @abstractmethod
    def teacher(self, files: RunFiles) -> float | None:
        """Return the teacher's main metric, if the run knows it."""
