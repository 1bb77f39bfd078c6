"""Runs of detectors, trained by tools/train_net.py."""

import os
import re
from pathlib import Path
from typing import Any, ClassVar

from detectron2.config import CfgNode

from eakd_det.analysis.detector_runs import analyze_detectors
from eakd_det.analysis.metrics import Series
from eakd_det.analysis.results import analyze_dynamics
from eakd_det.config.defaults import TIMM_BACKBONES
from eakd_det.config.merge import load_config
from eakd_det.evaluation.results import METRICS, identify_test_set, known_ap
from eakd_det.modeling.teacher.build import has_yaml_config, teacher_config
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import read_json

from .arguments import DATA_FLAGS
from .kinds import Config, RunKind
from .run_files import RunFiles

# "EA-DKD-matched-R18-R101": the method up to the first part that is a network, and the rest. A
# student of timm has a name in lower case: "EA-DKD-regnetx_004-R101", "Student-regnetx_004".
_TIMM = r"[a-z][a-z\d]*[\d_][\w.]*"
_NAME = re.compile(rf"(.+?)-((?:[A-Z]+\d+|{_TIMM}(?=-[A-Z]+\d)|(?<=^Student-){_TIMM})(?:-.*)?)")
_SHORT = re.compile(r"[RX]\d+|MV2")
_TASKS = {"bbox": "", "segm": "mask "}  # Detectron2's names -> prefix of a column's title


class Detectors(RunKind):
    title = "detectors"
    noun = "detector"
    script = "train_net.py"
    flags = DATA_FLAGS
    metrics: ClassVar = {name: name for name in METRICS}
    note = "COCO AP of boxes in percent at the end"
    columns = tuple(prefix + name for prefix in _TASKS.values() for name in METRICS)
    papers = Path(__file__).with_name("published.yaml")
    analyses: ClassVar = {"dynamics": analyze_dynamics, "detection": analyze_detectors}

    def is_kind_of(self, config: Config) -> bool:
        return bool({"MODEL", "DATASETS"} & config.keys()) or _is_lazy(config)

    def load(self, file: str, options: list[str]) -> CfgNode:
        cfg = load_config(file, options)
        if not cfg.DATASETS.TEST:
            raise UserError(f"{file} has no DATASETS.TEST to measure AP on.")
        return cfg

    def dataset(self, config: Config) -> str:
        if not _is_lazy(config):
            names = (*config["DATASETS"]["TEST"], *config["DATASETS"]["TRAIN"])
            return next(iter(names), "")
        names = config["dataloader"].get("test", {}).get("dataset", {}).get("names", "")
        return names if isinstance(names, str) else ", ".join(names)

    def networks(self, config: Config) -> tuple[str, str]:
        if _is_lazy(config):
            distillation = config["model"].get("distillation")
            teacher = distillation["teacher"]["config_file"] if distillation else ""
            student = str(config["model"]["_target_"]).rpartition(".")[2]
        else:
            teacher = config["TEACHER"]["CONFIG_FILE"] if config["DISTILL"]["METHODS"] else ""
            student = _label(config["MODEL"])
        return _teacher_name(teacher) if teacher else "", student

    def distillation(self, config: Config) -> dict[str, Any]:
        if not _is_lazy(config):
            return config["DISTILL"]
        distillation = config["model"].get("distillation") or {"methods": {}, "ea": {}}
        methods = {name: _upper(node) for name, node in distillation["methods"].items()}
        return {"METHODS": list(methods), "EA": _upper(distillation["ea"]), **methods}

    def seed(self, config: Config) -> int:
        return config["train"].get("seed", -1) if _is_lazy(config) else config["SEED"]

    def split(self, path: Path) -> tuple[str, str]:
        found = _NAME.fullmatch(path.stem)
        return found.groups() if found else (path.stem, path.parent.name)

    def models(self, cfg: CfgNode) -> str:
        """Return "R18-R101", or "R18" for a detector alone."""
        is_distilled, is_yaml = bool(cfg.DISTILL.METHODS), has_yaml_config(cfg)
        networks = [cfg, teacher_config(cfg)] if is_distilled and is_yaml else [cfg]
        names = [_timm_name(network.MODEL) or _backbone(network.MODEL) for network in networks]
        names += [Path(cfg.TEACHER.CONFIG_FILE).stem] if is_distilled and not is_yaml else []
        return "-".join(x[0] if (x := _SHORT.search(name)) else name for name in names)

    def sources(self, cfg: CfgNode) -> list[tuple[str, str]]:
        return [(cfg.TEACHER.CONFIG_FILE, cfg.TEACHER.WEIGHTS)] if cfg.DISTILL.METHODS else []

    def missing(self, cfg: CfgNode) -> dict[str, str]:
        node = cfg.TEACHER
        is_yaml = has_yaml_config(cfg) and os.path.isfile(node.CONFIG_FILE)
        if not cfg.DISTILL.METHODS or not is_yaml:
            return {}
        folder = load_config(node.CONFIG_FILE).OUTPUT_DIR
        final = os.path.join(folder, "model_final.pth")
        is_trained_there = os.path.normpath(node.WEIGHTS) == os.path.normpath(final)
        return {node.CONFIG_FILE: folder} if is_trained_there and not os.path.exists(final) else {}

    def source_arguments(self, file: str, cfg: CfgNode, arguments: list[str]) -> list[str]:
        flags = arguments[2 : arguments.index("SEED")]  # on the same data, and resumed likewise
        own = ["OUTPUT_DIR", load_config(file).OUTPUT_DIR, "MODEL.DEVICE", cfg.MODEL.DEVICE]
        if cfg.SOLVER.AMP.ENABLED:
            own += ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", cfg.SOLVER.AMP.DTYPE]
        return ["--config-file", file, *flags, *own]

    def figures(self, files: RunFiles) -> dict[str, float]:
        found = {}
        for task, prefix in _TASKS.items():
            for name in METRICS:
                value = files.last(_key(files, f"{task}/{name}"))
                value = files.result.get(name) if value is None and not prefix else value
                if value is not None:
                    found[prefix + name] = value
        return found

    def curve(self, files: RunFiles) -> Series:
        return files.metrics.get(_key(files, "bbox/AP"), [])

    def teacher(self, files: RunFiles) -> float | None:
        results = read_json(Path(files.run.folder, "teacher", "result.json"))  # of --eval-teacher
        if results:
            results = results if "bbox" in results else next(iter(results.values()))
            return results["bbox"]["AP"]
        if (known := files.result.get("teacher_AP")) is not None:
            return known
        # From the teacher's own run, as a sweep and the demo have it; not if that has more classes.
        if _is_lazy(files.config) or files.config["DISTILL"].get("CLASSES"):
            return None
        return known_ap(files.config["TEACHER"]["WEIGHTS"], identify_test_set(files.run.folder))


def _key(files: RunFiles, name: str) -> str:
    """Name of a metric in metrics.json; of several test sets, which prefix it, the first one's."""
    if _is_lazy(files.config) or len(files.config["DATASETS"]["TEST"]) < 2:
        return name
    return f"{files.config['DATASETS']['TEST'][0]}/{name}"


def _is_lazy(config: Config) -> bool:
    return "dataloader" in config and "train" in config


def _backbone(model: Config) -> str:
    """Name of a backbone with its depth, as "R18_fpn", "X101_fpn" (ResNeXt) or "MV2_fpn"."""
    name, resnet = model["BACKBONE"]["NAME"], model["RESNETS"]
    short = f"{'X' if resnet['NUM_GROUPS'] > 1 else 'R'}{resnet['DEPTH']}"
    name = name.removeprefix("build_").removesuffix("_backbone")
    return name.replace("resnet", short).replace("mobilenetv2", "MV2")


def _label(model: Config) -> str:
    """Name of a backbone, as "R18-FPN", "regnetx_004-FPN"."""
    name, timm = _backbone(model), _timm_name(model)
    return name.replace("_", "-").upper().replace("TIMM", timm or "TIMM")


def _timm_name(model: Config) -> str:
    """Name of a backbone of timm; empty if it is another's."""
    return model["TIMM"]["NAME"] if model["BACKBONE"]["NAME"] in TIMM_BACKBONES else ""


def _teacher_name(config_file: str) -> str:
    """Name of the teacher's backbone, or of its config where that is the model zoo's or missing."""
    path = Path(config_file)
    if path.is_file() and path.suffix in (".yaml", ".yml"):
        return _label(load_config(str(path)).MODEL)
    # Runs write files of these names; their folders tell them apart.
    return path.parent.name if path.stem in ("config", "student") else path.stem


def _upper(node: dict[str, Any]) -> dict[str, Any]:
    return {key.upper(): value for key, value in node.items()}
