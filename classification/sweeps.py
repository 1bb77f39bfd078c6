"""Sweeps of classifiers, trained by tools/train_classifier.py, and what papers report of them."""

from pathlib import Path
from typing import Any, ClassVar

import yaml
from detectron2.config import CfgNode

from eakd_det.sweep.kinds import SweepKind

from .config import classification_config, load_config
from .teacher import final_checkpoint, needs_training, teacher_config

# Models whose papers have no prefix before their names.
_PAPER_NAMES = {
    "imagenet_resnet18": "ResNet18",
    "imagenet_resnet34": "ResNet34",
    "imagenet_resnet50": "ResNet50",
    "imagenet_mobilenetv1": "MobileNetV1",
}


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

    def models(self, cfg: CfgNode) -> str:
        """<teacher>_<student>, or one of them alone."""
        student = paper_name(cfg.MODEL.NAME)
        if not cfg.DISTILL.METHODS:
            return student
        own = None if cfg.TEACHER.NAME else teacher_config(cfg)
        return f"{paper_name(cfg.TEACHER.NAME if own is None else own.MODEL.NAME)}_{student}"

    def names(self, path: Path, cfg: CfgNode) -> tuple[str, str]:
        method, models = super().names(path, cfg)
        return method.replace("REVIEWKD", "ReviewKD"), models

    def dataset(self, cfg: CfgNode) -> str:
        return cfg.DATASET.NAME

    def missing_teacher(self, cfg: CfgNode) -> str:
        return "" if needs_training(cfg) is None else cfg.TEACHER.CONFIG_FILE

    def teacher_files(self, cfg: CfgNode) -> tuple[str, str]:
        if not cfg.DISTILL.METHODS:
            return "", ""
        own = teacher_config(cfg)
        trained = "" if own is None else final_checkpoint(own)
        return cfg.TEACHER.CONFIG_FILE, cfg.TEACHER.WEIGHTS or trained

    def teacher_arguments(self, cfg: CfgNode, arguments: list[str]) -> list[str]:
        """Config of a plain run of the teacher, on the student's device and data."""
        data = cfg.DATASET
        pairs = ["MODEL.DEVICE", cfg.MODEL.DEVICE, "DATASET.NUM_WORKERS", str(data.NUM_WORKERS)]
        pairs += ["DATASET.ROOT", data.ROOT] if data.ROOT else []
        return ["--config-file", cfg.TEACHER.CONFIG_FILE, "--resume", *pairs]

    def published(self, row: dict[str, Any]) -> dict[str, Any] | None:
        return published().get((row["dataset"], row["method"].lower(), row["models"]))


def paper_name(model: str) -> str:
    """A model of `classification.models` as papers call it."""
    return _PAPER_NAMES.get(model, model)


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
