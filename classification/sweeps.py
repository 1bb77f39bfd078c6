"""Sweeps of classifiers, trained by tools/train_classifier.py, and what papers report of them."""

from pathlib import Path
from typing import Any, ClassVar

import yaml
from detectron2.config import CfgNode

from eakd_det.sweep.kinds import SweepKind

from .config import classification_config, load_config
from .teacher import needs_training


class ClassifierSweeps(SweepKind):
    title = "classifiers"
    script = "train_classifier.py"
    metrics: ClassVar = {"top1": "top-1"}
    note = "Top-1 in percent after the last epoch"
    no_matter = ("DATASET.ROOT", "DATASET.NUM_WORKERS")

    def is_kind_of(self, config: dict[str, Any]) -> bool:
        return "DATASET" in config

    def defaults(self) -> CfgNode:
        return classification_config()

    def load(self, file: str, options: list[str]) -> CfgNode:
        return load_config(file, options)

    def split(self, path: Path) -> tuple[str, str]:
        """Of <method>/<teacher>_<student>.yaml."""
        return path.parent.name, path.stem

    def dataset(self, cfg: CfgNode) -> str:
        return cfg.DATASET.NAME

    def missing_teacher(self, cfg: CfgNode) -> str:
        return "" if needs_training(cfg) is None else cfg.TEACHER.CONFIG_FILE

    def teacher_arguments(self, teacher: str, arguments: list[str]) -> list[str]:
        return ["--teacher-only", *arguments]

    def published(self, row: dict[str, Any]) -> dict[str, Any] | None:
        return published().get((row["dataset"], row["method"].lower(), row["models"]))


def published() -> dict[tuple[str, str, str], dict[str, Any]]:
    """Figures of papers: (dataset, method in lower case, models) -> mean, std, runs and source.

    Models are "<teacher>_<student>"; the student and the teacher alone, methods "student" and
    "teacher", are also found by their own name. What a paper does not give is None.
    """
    figures = {}
    for table in yaml.safe_load(Path(__file__).with_name("published.yaml").read_text()):
        dataset, source = table["dataset"], table["source"]
        for pair in table["pairs"]:
            models = f"{pair['teacher']['name']}_{pair['student']['name']}"
            for method, figure in pair["methods"].items():
                runs = table["runs"] if "std" in figure else None
                figure = {"std": None, "runs": runs, "source": source, **figure}
                figures[dataset, method.lower(), models] = figure
            for method in ("teacher", "student"):
                if "top1" in pair[method]:
                    figure = {"mean": pair[method]["top1"], "std": None, "runs": None}
                    for name in (models, pair[method]["name"]):
                        figures[dataset, method, name] = {**figure, "source": source}
    return figures
