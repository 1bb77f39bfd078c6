"""Reports of detectors: where their configs and results say what."""

import json
from pathlib import Path
from typing import Any

from eakd_det.analysis.metrics import Series
from eakd_det.config.merge import load_config
from eakd_det.evaluation.results import METRICS, known_ap
from eakd_det.sweep.detectors import DetectorSweeps
from eakd_det.sweep.published import Published, published_for

from .kinds import Kind
from .runs import RunFiles

TASKS = {"bbox": "", "segm": "mask "}  # Detectron2's names; what a column's title begins with


class Detectors(Kind):
    title = "detectors"
    columns = tuple(prefix + name for prefix in TASKS.values() for name in METRICS)
    sweep = DetectorSweeps()

    def is_kind_of(self, config: dict[str, Any]) -> bool:
        return "DATASETS" in config or _is_lazy(config)

    def dataset(self, config: dict[str, Any]) -> str:
        if _is_lazy(config):
            names = config["dataloader"].get("test", {}).get("dataset", {}).get("names", "")
            return names if isinstance(names, str) else ", ".join(names)
        return ", ".join(config["DATASETS"]["TEST"] or config["DATASETS"]["TRAIN"])

    def models(self, config: dict[str, Any]) -> str:
        if _is_lazy(config):
            distillation = config["model"].get("distillation")
            student = str(config["model"]["_target_"]).rpartition(".")[2]
            return (
                f"{_teacher_name(distillation['teacher']['config_file'])} → {student}"
                if (distillation)
                else student
            )
        student = _backbone_name(config["MODEL"])
        if not config["DISTILL"]["METHODS"]:
            return student
        return f"{_teacher_name(config['TEACHER']['CONFIG_FILE'])} → {student}"

    def distillation(self, config: dict[str, Any]) -> dict[str, Any]:
        if not _is_lazy(config):
            return config["DISTILL"]
        distillation = config["model"].get("distillation") or {"methods": {}, "ea": {}}
        methods = {name: _upper(node) for name, node in distillation["methods"].items()}
        return {"METHODS": list(methods), "EA": _upper(distillation["ea"]), **methods}

    def figures(self, files: RunFiles) -> dict[str, float]:
        found = {}
        for task, prefix in TASKS.items():
            for name in METRICS:
                value = files.last(_key(files, f"{task}/{name}"))
                value = files.result.get(name) if value is None and not prefix else value
                if value is not None:
                    found[prefix + name] = value
        return found

    def curve(self, files: RunFiles) -> Series:
        return files.metrics.get(_key(files, "bbox/AP"), [])

    def teacher(self, files: RunFiles) -> float | None:
        evaluated = Path(files.run.folder) / "teacher" / "result.json"  # of --eval-teacher
        if evaluated.exists():
            results = json.loads(evaluated.read_text())
            results = results if "bbox" in results else next(iter(results.values()))
            return results["bbox"]["AP"]
        # Of the teacher's own run, as a sweep and the demo have it.
        return None if _is_lazy(files.config) else known_ap(files.config["TEACHER"]["WEIGHTS"])

    def published(self, files: RunFiles) -> Published | None:
        if _is_lazy(files.config):
            return None
        return published_for(files.config, self.method(files.config))


def _key(files: RunFiles, name: str) -> str:
    """A metric's name in metrics.json, where several test sets stand before it: of the first."""
    if _is_lazy(files.config) or len(files.config["DATASETS"]["TEST"]) < 2:
        return name
    return f"{files.config['DATASETS']['TEST'][0]}/{name}"


def _is_lazy(config: dict[str, Any]) -> bool:
    return "dataloader" in config and "train" in config


def _backbone_name(model: dict[str, Any]) -> str:
    """As "R18-FPN", of a config's node MODEL."""
    name = model["BACKBONE"]["NAME"].removeprefix("build_").removesuffix("_backbone")
    name = name.replace("_", "-").replace("resnet", f"R{model['RESNETS']['DEPTH']}")
    return name.upper()


def _teacher_name(config_file: str) -> str:
    """The teacher's backbone; the file's name where it is the model zoo's, or is not there."""
    path = Path(config_file)
    if path.is_file() and path.suffix in (".yaml", ".yml"):
        return _backbone_name(load_config(str(path)).MODEL)
    # What runs write is called alike, and lies in a folder with a name.
    return path.parent.name if path.stem in ("config", "student") else path.stem


def _upper(node: dict[str, Any]) -> dict[str, Any]:
    return {key.upper(): value for key, value in node.items()}
