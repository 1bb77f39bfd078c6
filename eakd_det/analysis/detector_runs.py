"""From the runs of detectors to what the analyses look at."""

from dataclasses import dataclass, replace

from detectron2.config import CfgNode
from torch import nn

from ..config import load_config
from ..detectors import load_student, load_teacher, num_classes, use_available_device
from ..errors import UserError
from .runs import Run

TEACHER = "teacher"  # its label


@dataclass(frozen=True)
class Detector:
    """A stock detector with its weights.

    Attributes:
        label: for figures and tables.
        cfg: its own stock config.
        model: on the device of the config.
    """

    label: str
    cfg: CfgNode
    model: nn.Module


def detector_configs(runs: list[Run], config_file: str = "") -> list[CfgNode]:
    """The config of each run, for a device that is there.

    Args:
        config_file: for runs that have written none.

    Raises:
        UserError: there is none, or it does not load.
    """
    configs = [load_config(run.config_file(config_file)) for run in runs]
    for cfg in configs:
        use_available_device(cfg)
    return configs


def load_detectors(
    runs: list[Run], configs: list[CfgNode], teacher: tuple[Run, CfgNode] | None = None
) -> tuple[Detector, list[Detector]]:
    """The teacher, and the student of each run.

    Args:
        configs: of the runs.
        teacher: the run that is the teacher, with its config; None is the teacher of the first run
            that has one.

    Raises:
        UserError: there is no teacher, weights are missing or do not fit, or the classes are not
            as many.
    """
    distilled = [cfg for cfg in configs if cfg.TEACHER.CONFIG_FILE]
    if teacher is None and not distilled:
        raise UserError("None of the runs has a teacher: name one with --teacher.")
    students = [_load(run, cfg) for run, cfg in zip(runs, configs, strict=True)]
    if teacher is None:
        known = Detector(TEACHER, *load_teacher(distilled[0]))
    else:
        known = replace(_load(*teacher), label=TEACHER)
    _, number = num_classes(known.cfg)
    for detector in students:
        key, its_number = num_classes(detector.cfg)
        if its_number != number:
            raise UserError(
                f"{detector.label} has {its_number} classes ({key}) and the teacher {number}: they "
                "cannot be compared."
            )
    return known, students


def _load(run: Run, cfg: CfgNode) -> Detector:
    try:
        return Detector(run.label, *load_student(cfg, run.weights))
    except UserError as error:
        raise UserError(f"{run.label}: {error}") from error
