"""Analysis of the runs of detectors."""

import argparse
from collections.abc import Iterator

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import nn

from eakd_det.config.merge import load_config
from eakd_det.data.custom import use_val_data
from eakd_det.data.registered import check_datasets
from eakd_det.modeling.build import load_student, load_teacher, num_classes
from eakd_det.utils.command_line import data_sources
from eakd_det.utils.device import use_available_device
from eakd_det.utils.errors import UserError

from .detection_results import detector_results
from .figures import panel_rows
from .objects import find_objects, run_detector
from .results import AnalysisResult
from .runs import Run, named_run

TEACHER = "teacher"  # label of it


def analyze_detectors(
    runs: list[Run],
    *,
    config_file: str = "",
    teacher: str = "",
    val_json: str = "",
    val_images: str = "",
    clip: bool = False,
    num_points: int,
    seed: int,
) -> Iterator[AnalysisResult]:
    """Analyse detectors on the first of DATASETS.TEST of the first run.

    Args:
        config_file: config of runs without a config.yaml.
        teacher: `[LABEL=]PATH` of the teacher; empty is that of the first run that has one.
        val_json, val_images: a file in COCO format and the folder of its images, in place of the
            dataset.
        clip: cut its boxes off at the edges of their images.
        num_points, seed: of t-SNE, as `detector_results` takes them.

    Raises:
        UserError: a config, weights or data are missing or do not fit.
    """
    configs = detector_configs(runs, config_file)
    cfg = configs[0]
    named = argparse.Namespace(val_json=val_json, val_images=val_images)
    use_val_data(cfg, runs[0].folder, data_sources(named, "val"), clip=clip)
    if not cfg.DATASETS.TEST:
        raise UserError(f"{runs[0].folder} has no DATASETS.TEST: name files with --val-json.")
    check_datasets(cfg, ("TEST",))
    own = named_run(teacher)
    own = own and (own, *detector_configs([own], config_file))
    detectors = load_detectors(runs, configs, own)
    dataset = cfg.DATASETS.TEST[0]
    objects = find_objects(DatasetCatalog.get(dataset))
    outputs = {label: run_detector(*of, objects) for label, of in detectors.items()}
    return detector_results(
        objects,
        outputs.pop(TEACHER),
        outputs,
        MetadataCatalog.get(dataset).thing_classes,
        panel_rows({run.label: run.name for run in runs} | {TEACHER: None}),
        temperature=cfg.DISTILL.EA.TEMPERATURE,
        num_points=num_points,
        seed=seed,
    )


def detector_configs(runs: list[Run], config_file: str = "") -> list[CfgNode]:
    """Load the config of each run, for an available device.

    Args:
        config_file: config of runs without a config.yaml.

    Raises:
        UserError: there is none, or it does not load.
    """
    configs = [load_config(run.config_file(config_file)) for run in runs]
    for cfg in configs:
        use_available_device(cfg)
    return configs


def load_detectors(
    runs: list[Run], configs: list[CfgNode], teacher: tuple[Run, CfgNode] | None = None
) -> dict[str, tuple[CfgNode, nn.Module]]:
    """Load the student of each run, and the teacher under TEACHER.

    Args:
        configs: of the runs.
        teacher: run of the teacher, with its config; None is the teacher of the first run that has
            one.

    Returns:
        Label -> stock config, and model on the device of the config.

    Raises:
        UserError: there is no teacher, or a run is called so; weights are missing or do not fit,
            or the classes are not as many.
    """
    if TEACHER in [run.label for run in runs]:
        raise UserError(f"A run is called {TEACHER!r}, as the teacher is: name it as LABEL=PATH.")
    distilled = [cfg for cfg in configs if cfg.TEACHER.CONFIG_FILE]
    if teacher is None and not distilled:
        raise UserError("None of the runs has a teacher: name one with --teacher.")
    if teacher is None and distilled[0].DISTILL.CLASSES:
        raise UserError(
            "The teacher has other classes than the student, of which DISTILL.CLASSES names those "
            "in common: they cannot be compared object by object. Name a teacher of the student's "
            "classes with --teacher."
        )
    detectors = {run.label: _load(run, cfg) for run, cfg in zip(runs, configs, strict=True)}
    detectors[TEACHER] = load_teacher(distilled[0]) if teacher is None else _load(*teacher)
    _, number = num_classes(detectors[TEACHER][0])
    for label, (cfg, _) in detectors.items():
        key, its_number = num_classes(cfg)
        if its_number != number:
            raise UserError(
                f"{label} has {its_number} classes ({key}) and the teacher {number}: they cannot "
                "be compared."
            )
    return detectors


def _load(run: Run, cfg: CfgNode) -> tuple[CfgNode, nn.Module]:
    try:
        return load_student(cfg, run.weights)
    except UserError as error:
        raise UserError(f"{run.label}: {error}") from error
