"""Distillation of a detector by one call."""

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from eakd_det import model_zoo
from eakd_det.checkpoint.run_folder import find_run
from eakd_det.evaluation.predictor import Predictor
from eakd_det.utils.errors import UserError

from .detection_run import check_first, run_detector
from .launch import repeated_warnings

# A registered dataset, or a JSON file in COCO format and the folder of its images.
Path = str | os.PathLike[str]
Data = str | tuple[Path, Path]


@dataclass(frozen=True)
class Result:
    """A trained student.

    Attributes:
        metrics: of the evaluation at the end, as {"bbox": {"AP": 41.2, ...}}; empty without one.
        output_dir: folder of the run.
        config_file: its student.yaml, a plain Detectron2 config.
        weights: its model_best.pth if it was evaluated during the training, else model_final.pth.
    """

    metrics: dict[str, Any]
    output_dir: str
    config_file: str
    weights: str

    @cached_property
    def predictor(self) -> Predictor:
        """The student with `weights`: call it with an image (RGB array or path) for its boxes."""
        return Predictor(self.output_dir)


def distill(
    config: Path,
    *,
    teacher: Path | None = None,
    train: Data | None = None,
    val: Data | None = None,
    epochs: int | None = None,
    student: str | None = None,
    output_dir: Path | None = None,
    options: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Result:
    """Train a student in this process as `tools/train_net.py` does, and return it.

    Args:
        config: YAML config: a path, or a name of `model_zoo.get_config_file`.
        teacher: folder of its run, with config and weights; None: TEACHER of the config.
        train, val: data; None: those of the config. Without `val` a student that is trained on
            `train` is not evaluated.
        epochs: passes over the training images, which set the schedule; None: the config's.
        student: another backbone, of `eakd_det.config.students.STUDENTS`, or "timm:NAME".
        output_dir: folder of the run; None: the config's, or output/DATA/CONFIG for JSON files.
        options: values of config keys, as {"SOLVER.IMS_PER_BATCH": 4}.
        resume, overwrite: continue the run in the folder, or remove it and start anew.

    Raises:
        UserError: a config, data, the teacher or the folder does not fit.
    """
    config = os.fspath(config)
    if config.endswith(".py"):
        raise UserError(f"{config}: distill() takes YAML configs.")
    if epochs is not None and epochs < 1:
        raise UserError(f"epochs: {epochs} is less than 1.")
    pairs = {**_datasets(train, val), **(options or {})}
    if output_dir is not None:
        pairs["OUTPUT_DIR"] = os.fspath(output_dir)
    args = argparse.Namespace(
        config_file=config if os.path.isfile(config) else model_zoo.get_config_file(config),
        teacher=None if teacher is None else os.fspath(teacher),
        student=student,
        epochs=epochs,
        **_files("train", train),
        **_files("val", val),
        opts=[str(word) for pair in pairs.items() for word in pair],
        resume=resume,
        overwrite=overwrite,
        **_OTHER_FLAGS,
    )
    with repeated_warnings():
        check_first(args)
        cfg, metrics = run_detector(args)
    run = find_run(cfg.OUTPUT_DIR)
    return Result(dict(metrics or {}), cfg.OUTPUT_DIR, run.config_file, run.weights)


# Of a training in one process, without the tool's other flags.
_OTHER_FLAGS: dict[str, Any] = {
    "num_gpus": 1,
    "num_machines": 1,
    "machine_rank": 0,
    "eval_only": False,
    "eval_teacher": False,
    "check": False,
    "clip_boxes": False,
    "wandb": None,
}


def _files(split: str, data: Data | None) -> dict[str, str | None]:
    paths = (None, None) if data is None or isinstance(data, str) else map(os.fspath, data)
    return dict(zip((f"{split}_json", f"{split}_images"), paths, strict=True))


def _datasets(train: Data | None, val: Data | None) -> dict[str, tuple[str, ...]]:
    """Return the config keys of registered datasets."""
    named = {"DATASETS.TRAIN": train, "DATASETS.TEST": val}
    found = {key: (data,) for key, data in named.items() if isinstance(data, str)}
    if train is not None and val is None:
        found["DATASETS.TEST"] = ()
    return found
