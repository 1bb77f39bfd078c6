"""Runs of language models, trained and evaluated by tools/train_lm.py --evaluate.

Transformers, which other runs do not need, is imported by the methods that use it.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from detectron2.config import CfgNode

from eakd_det.analysis.metrics import Series
from eakd_det.config.safe_yaml import read_yaml
from eakd_det.sweep.kinds import Config, RunKind
from eakd_det.sweep.published import Published
from eakd_det.sweep.run_files import RunFiles
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import read_json
from eakd_det.utils.output_dir import OutputFiles

from .results import SCORES, TITLES, TRAIN_RESULT, as_series, figures_of, titles


class LanguageModels(RunKind):
    title = "language models"
    noun = "language model"
    script = "train_lm.py"
    arguments = ("--evaluate",)
    seed_key = "TRAINING.SEED"
    metrics: ClassVar = TITLES
    note = "Percent at the end, of all sets and of each"
    no_matter = ("TEST",)
    weights = ("*.safetensors", "pytorch_model*.bin")
    columns = tuple(TITLES.values())
    log = TRAIN_RESULT
    papers = Path(__file__).with_name("published.yaml")

    def is_kind_of(self, config: Config) -> bool:
        return "TRAINING" in config or "TRAIN" in (config.get("DATASET") or ())

    def load(self, file: str, options: list[str]) -> CfgNode:
        from .config import load_config

        cfg = load_config(file, options)
        if not cfg.TEST.SETS:
            raise UserError(f"{file} has no TEST.SETS to evaluate on.")
        return cfg

    def dataset(self, config: Config) -> str:
        return ", ".join(_sets(config))

    def networks(self, config: Config) -> tuple[str, str]:
        teacher = _network(config["TEACHER"]) if config["DISTILL"]["METHODS"] else ""
        return teacher, _network(config["MODEL"])

    def published(self, config: Config) -> Published | None:
        """Find a paper's figures of the sets; their average where the sets are the same."""
        found = super().published(config)
        if found is None:
            return None
        of_sets = {f"{self.main} {name}" for name in _sets(config)}
        kept = {key: value for key, value in found.figures.items() if key in of_sets}
        if {self.main, *of_sets} == found.figures.keys():
            kept = {self.main: found.figures[self.main], **kept}
        return replace(found, figures=kept) if kept else None

    @property
    def files(self) -> OutputFiles:
        from .output_files import FILES

        return FILES

    def measured(self, results: Sequence[dict[str, Any]]) -> "LanguageModels":
        kind = copy.copy(self)
        kind.metrics = titles([key for key in results[0] if all(key in of for of in results)])
        return kind

    def is_current(self, result: dict[str, Any], cfg: CfgNode) -> bool:
        return result["settings"] == cfg.TEST.dump()

    def identity(self, cfg: CfgNode, gpus: int) -> list[str]:
        """Return the number of processes, by which the batch is multiplied."""
        return [f"{gpus} processes"] if gpus > 1 else []

    def split(self, path: Path) -> tuple[str, str]:
        """Return the file's name and the folder's."""
        return path.stem, path.parent.name

    def models(self, cfg: CfgNode) -> str:
        """Return <student>-<teacher>, or one of them."""
        return "-".join(filter(None, reversed(self.networks(cfg))))

    def sources(self, cfg: CfgNode) -> list[tuple[str, str]]:
        from .building import weights_of

        nodes = [cfg.TEACHER, cfg.MODEL] if cfg.DISTILL.METHODS else [cfg.MODEL]
        return [(node.CONFIG_FILE, weights) for node in nodes if (weights := weights_of(node))]

    def missing(self, cfg: CfgNode) -> dict[str, str]:
        from .output_files import has_ended
        from .training import needed_runs

        runs = needed_runs(cfg)
        return {file: run.OUTPUT_DIR for file, run in runs.items() if not has_ended(run)}

    def source_arguments(self, file: str, cfg: CfgNode, arguments: list[str]) -> list[str]:
        from .config import device_options

        return ["--config-file", file, "--resume", *device_options(cfg)]

    def command(self, script: str, arguments: list[str], gpus: int) -> list[str]:
        several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(gpus)]
        return [*(several if gpus > 1 else []), script, *arguments]

    def read(self, folder: str) -> tuple[dict[str, Series], dict[str, Any]]:
        path = Path(folder)
        state, trained, scores, result = (
            read_json(path / name)
            for name in ("trainer_state.json", TRAIN_RESULT, SCORES, "result.json")
        )
        figures = figures_of(scores["scores"]) if scores else {}
        return as_series(state), {**trained, **figures, **result}

    def figures(self, files: RunFiles) -> dict[str, float]:
        return {title: files.result[key] for key, title in titles([*files.result]).items()}

    def curve(self, files: RunFiles) -> Series:
        return []  # the sets are evaluated at the end alone

    def teacher(self, files: RunFiles) -> float | None:
        return files.result.get("teacher_rougeL")


def _sets(config: Config) -> list[str]:
    """Names of TEST.SETS."""
    return [str(entry).partition("=")[0] for entry in config["TEST"]["SETS"]]


def _network(node: Config) -> str:
    """Name of the weights in MODEL or TEACHER; else of the config that they are from; else "gpt2",
    the type of an architecture."""
    weights, path = node["WEIGHTS"], Path(node["CONFIG_FILE"])
    if not weights and path.is_file():
        weights = read_yaml(str(path)).get("MODEL", {}).get("WEIGHTS", "")
    return Path(weights).name or path.stem or node["ARCHITECTURE"]["model_type"]
