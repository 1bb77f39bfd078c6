"""Sweeps of detectors, trained by tools/train_net.py."""

import os
import re
from pathlib import Path
from typing import Any, ClassVar

from detectron2.config import CfgNode

from eakd_det.config.defaults import detection_config
from eakd_det.config.merge import load_config
from eakd_det.config.safe_yaml import read_yaml
from eakd_det.evaluation.results import METRICS
from eakd_det.modeling.teacher.build import teacher_config
from eakd_det.utils.errors import UserError

from .kinds import SweepKind
from .published import method_name, published_for

# Of "EA-DKD-matched-R18-R101": what comes before the first part that is a network, and the rest.
_NAME = re.compile(r"(.+?)-((?:[A-Z]+\d+)(?:-.*)?)")


class DetectorSweeps(SweepKind):
    title = "detectors"
    script = "train_net.py"
    metrics: ClassVar = {name: name for name in METRICS}
    note = "COCO AP of boxes in percent at the end"
    flags = ("--train-json", "--train-images", "--val-json", "--val-images")

    def is_kind_of(self, config: dict[str, Any]) -> bool:
        return "DATASET" not in config

    def defaults(self) -> CfgNode:
        return detection_config()

    def load(self, file: str, options: list[str]) -> CfgNode:
        cfg = load_config(file, options)
        if not cfg.DATASETS.TEST:
            raise UserError(f"{file} names no DATASETS.TEST to measure AP on.")
        return cfg

    def split(self, path: Path) -> tuple[str, str]:
        found = _NAME.fullmatch(path.stem)
        return found.groups() if found else (path.stem, path.parent.name)

    def models(self, cfg: CfgNode) -> str:
        """R18-R101, or R18 alone."""
        networks = [cfg, teacher_config(cfg)] if cfg.DISTILL.METHODS else [cfg]
        return "-".join(_network(cfg) for cfg in networks)

    def dataset(self, cfg: CfgNode) -> str:
        return cfg.DATASETS.TEST[0]

    def missing_teacher(self, cfg: CfgNode) -> str:
        node = cfg.TEACHER
        if not cfg.DISTILL.METHODS or not os.path.isfile(node.CONFIG_FILE):
            return ""
        final = os.path.join(load_config(node.CONFIG_FILE).OUTPUT_DIR, "model_final.pth")
        is_trained_there = os.path.normpath(node.WEIGHTS) == os.path.normpath(final)
        return node.CONFIG_FILE if is_trained_there and not os.path.exists(final) else ""

    def teacher_files(self, cfg: CfgNode) -> tuple[str, str]:
        return (cfg.TEACHER.CONFIG_FILE, cfg.TEACHER.WEIGHTS) if cfg.DISTILL.METHODS else ("", "")

    def teacher_arguments(self, cfg: CfgNode, arguments: list[str]) -> list[str]:
        flags = arguments[2 : arguments.index("SEED")]  # on the same data, and resumed likewise
        return ["--config-file", cfg.TEACHER.CONFIG_FILE, *flags]

    def published(self, row: dict[str, Any]) -> dict[str, Any] | None:
        config = read_yaml(str(Path(row["folder"], "config.yaml")))
        found = published_for(config, method_name(config["DISTILL"]))
        if found is None or self.main not in found.figures:
            return None
        return {"mean": found.figures[self.main], "std": None, "source": found.source}


def _network(cfg: CfgNode) -> str:
    """A backbone in short: R18, X101 (ResNeXt), MV2; of another one the name that it registers."""
    name, resnet = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.RESNETS
    if "mobilenetv2" in name:
        return "MV2"
    if "resnet" in name:
        return f"{'X' if resnet.NUM_GROUPS > 1 else 'R'}{resnet.DEPTH}"
    return name.removeprefix("build_").removesuffix("_backbone")
