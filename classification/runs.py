"""Runs of classifiers, trained by tools/train_classifier.py."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from detectron2.config import CfgNode

from eakd_det.analysis.metrics import Series
from eakd_det.sweep.kinds import Config, RunKind
from eakd_det.sweep.run_files import RunFiles

from .analyses import ANALYSES
from .config import load_config
from .names import data_name
from .own_images import is_own
from .teacher_run import final_checkpoint, needs_training, teacher_config, teacher_options

# Models that papers call otherwise than MODEL.NAME.
_PAPER_NAMES = {
    "imagenet_resnet18": "ResNet18",
    "imagenet_resnet34": "ResNet34",
    "imagenet_resnet50": "ResNet50",
    "imagenet_mobilenetv1": "MobileNetV1",
}


class Classifiers(RunKind):
    title = "classifiers"
    noun = "classifier"
    script = "train_classifier.py"
    metrics: ClassVar = {"top1": "top-1"}
    note = "Top-1 in percent after the last epoch"
    no_matter = ("DATASET.ROOT", "DATASET.NUM_WORKERS")
    columns = ("top-1", "top-5", "best top-1")
    papers = Path(__file__).with_name("published.yaml")
    analyses: ClassVar = ANALYSES

    def is_kind_of(self, config: Config) -> bool:
        return isinstance(config.get("DATASET"), Mapping)

    def load(self, file: str, options: list[str]) -> CfgNode:
        return load_config(file, options)

    def dataset(self, config: Config) -> str:
        return data_name(config["DATASET"])

    def identity(self, cfg: CfgNode, gpus: int) -> list[str]:
        """Return the name of the folder of own images, which may lie elsewhere."""
        return [self.dataset(cfg)] if is_own(cfg.DATASET.NAME) else []

    def networks(self, config: Config) -> tuple[str, str]:
        teacher, student = "", config["MODEL"]["NAME"]
        if config["DISTILL"]["METHODS"]:
            teacher = config["TEACHER"]["NAME"] or _network(config["TEACHER"]["CONFIG_FILE"])
        return _PAPER_NAMES.get(teacher, teacher), _PAPER_NAMES.get(student, student)

    def split(self, path: Path) -> tuple[str, str]:
        """Return the parts of <method>/<teacher>_<student>.yaml."""
        return path.parent.name, path.stem

    def models(self, cfg: CfgNode) -> str:
        """Return <teacher>_<student>, or one of them."""
        return "_".join(filter(None, self.networks(cfg)))

    def names(self, path: Path, cfg: CfgNode) -> tuple[str, str]:
        method, models = super().names(path, cfg)
        return method.replace("REVIEWKD", "ReviewKD"), models

    def sources(self, cfg: CfgNode) -> list[tuple[str, str]]:
        if not cfg.DISTILL.METHODS:
            return []
        own = teacher_config(cfg)
        trained = "" if own is None else final_checkpoint(own)
        return [(cfg.TEACHER.CONFIG_FILE, cfg.TEACHER.WEIGHTS or trained)]

    def missing(self, cfg: CfgNode) -> dict[str, str]:
        teacher = needs_training(cfg)
        return {} if teacher is None else {cfg.TEACHER.CONFIG_FILE: teacher.OUTPUT_DIR}

    def separate_sources(self, cfg: CfgNode, varied: CfgNode, name: str) -> list[str]:
        """Return TEACHER.OUTPUT_DIR, where the key changes the run that trains the teacher."""
        if not varied.DISTILL.METHODS or varied.TEACHER.WEIGHTS:
            return []
        before, now = (_trained_alike(teacher_config(x)) for x in (cfg, varied))
        if before is None or now is None or now == before or now.OUTPUT_DIR != before.OUTPUT_DIR:
            return []
        return ["TEACHER.OUTPUT_DIR", f"{now.OUTPUT_DIR}-{name}"]

    def source_arguments(self, file: str, cfg: CfgNode, arguments: list[str]) -> list[str]:
        """Return those of a plain run of the teacher, with the student's data and precision."""
        return ["--config-file", file, "--resume", *teacher_options(cfg, load_config(file))]

    def figures(self, files: RunFiles) -> dict[str, float]:
        found = {
            "top-1": files.last("top1"),
            "top-5": files.last("top5"),
            "best top-1": max((value for _, value in self.curve(files)), default=None),
        }
        return {column: value for column, value in found.items() if value is not None}

    def per_class(self, files: RunFiles) -> dict[str, float | None]:
        return files.result.get("per_class", {})

    def curve(self, files: RunFiles) -> Series:
        return files.metrics.get("top1", [])

    def teacher(self, files: RunFiles) -> float | None:
        return files.result.get("teacher_top1")


def _trained_alike(cfg: CfgNode | None) -> CfgNode | None:
    """Return a config without the keys for which a run has no teacher of its own."""
    if cfg is not None:
        cfg.MODEL.DEVICE, cfg.DATASET.NUM_WORKERS = "", 0
        cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.DTYPE = False, ""
        if not is_own(cfg.DATASET.NAME):  # the same data, wherever they lie
            cfg.DATASET.ROOT = ""
    return cfg


def _network(config_file: str) -> str:
    """Return MODEL.NAME of a config, or the name of a file that is not found from here."""
    path = Path(config_file)
    return load_config(config_file).MODEL.NAME if path.is_file() else path.stem
