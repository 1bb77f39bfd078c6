"""Reports of classifiers: where their configs and results say what."""

from pathlib import Path
from typing import Any

from eakd_det.analysis.metrics import Series
from eakd_det.report.kinds import Kind
from eakd_det.report.runs import RunFiles
from eakd_det.sweep.published import Published

from .config import load_config
from .sweeps import ClassifierSweeps, paper_name, published


class Classifiers(Kind):
    title = "classifiers"
    columns = ("top-1", "top-5", "best top-1")
    sweep = ClassifierSweeps()

    def is_kind_of(self, config: dict[str, Any]) -> bool:
        return "DATASET" in config and "NAME" in config["DATASET"]

    def dataset(self, config: dict[str, Any]) -> str:
        return config["DATASET"]["NAME"]

    def models(self, config: dict[str, Any]) -> str:
        student = config["MODEL"]["NAME"]
        if not config["DISTILL"]["METHODS"]:
            return student
        return f"{teacher_name(config)} → {student}"

    def distillation(self, config: dict[str, Any]) -> dict[str, Any]:
        return config["DISTILL"]

    def figures(self, files: RunFiles) -> dict[str, float]:
        curve = self.curve(files)
        found = {
            "top-1": files.last("top1"),
            "top-5": files.last("top5"),
            "best top-1": max((value for _, value in curve), default=None),
        }
        return {column: value for column, value in found.items() if value is not None}

    def curve(self, files: RunFiles) -> Series:
        return files.metrics.get("top1", [])

    def teacher(self, files: RunFiles) -> float | None:
        return files.result.get("teacher_top1")

    def published(self, files: RunFiles) -> Published | None:
        config, method = files.config, self.method(files.config)
        models = paper_name(config["MODEL"]["NAME"])
        if method:
            models = f"{paper_name(teacher_name(config))}_{models}"
        figures, dataset = published(), config["DATASET"]["NAME"]
        roles = [method.lower()] if method else ["student", "teacher"]
        found = next((x for role in roles if (x := figures.get((dataset, role, models)))), None)
        if found is None:
            return None
        teacher = figures.get((dataset, "teacher", models)) if method else None
        return Published(
            method or "not distilled",
            {"top-1": found["mean"]},
            {} if found["std"] is None else {"top-1": found["std"]},
            teacher and teacher["mean"],
            found["source"],
        )


def teacher_name(config: dict[str, Any]) -> str:
    """The teacher's model; where its config is not to be found from here, the config's name."""
    teacher = config["TEACHER"]
    if teacher["NAME"]:
        return teacher["NAME"]
    path = Path(teacher["CONFIG_FILE"])
    return load_config(str(path)).MODEL.NAME if path.is_file() else path.stem
