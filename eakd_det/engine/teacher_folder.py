"""Teacher of a run by the folder of its training: --teacher."""

from detectron2.config import CfgNode

from eakd_det.checkpoint.run_folder import RunFolder, find_run
from eakd_det.config.choices import Choice
from eakd_det.config.defaults import STOCK_ARCHITECTURES
from eakd_det.data.class_names import (
    check_positions,
    join_names,
    known_names,
    loaded_names,
)
from eakd_det.distillers import DISTILLERS, DistillationObjective, method_settings
from eakd_det.modeling.build import num_classes
from eakd_det.modeling.class_checks import map_classes
from eakd_det.modeling.teacher.build import teacher_config
from eakd_det.utils.errors import UserError


def find_teacher(folder: str) -> RunFolder:
    """Return the teacher's files; see `find_run`."""
    try:
        return find_run(folder)
    except UserError as error:
        raise UserError(f"--teacher: {error}") from error


def teacher_choices(folder: str, teacher: RunFolder) -> list[Choice]:
    """Return the config keys of the teacher that is found in a folder."""
    why = f"--teacher {folder}"
    return [
        Choice("TEACHER.CONFIG_FILE", teacher.config_file, why),
        Choice("TEACHER.WEIGHTS", teacher.weights, why),
    ]


def check_is_distilled(cfg: CfgNode, config_file: str) -> None:
    """Raise UserError if the config trains a detector without a teacher."""
    if cfg.MODEL.META_ARCHITECTURE not in STOCK_ARCHITECTURES or not cfg.DISTILL.METHODS:
        raise UserError(
            f"--teacher: {config_file} trains a detector without a teacher (its "
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}, its DISTILL.METHODS "
            f"{cfg.DISTILL.METHODS}). Name a distilled config, such as "
            "configs/COCO-Detection/EA-DKD-R18-R101.yaml."
        )


def compare_classes(cfg: CfgNode, teacher: RunFolder) -> list[str]:
    """Compare the classes of a teacher with those of the data, if logits are compared.

    Args:
        cfg: config of the run, whose own data are registered.
        teacher: found in its folder. Nothing is compared if KEY VALUE pairs name another.

    Returns:
        A sentence if the names of the teacher's classes are not known.

    Raises:
        UserError: their number differs, or the order of their names; DISTILL.CLASSES has wrong
            names.
    """
    if (cfg.TEACHER.CONFIG_FILE, cfg.TEACHER.WEIGHTS) != (teacher.config_file, teacher.weights):
        return []
    settings = method_settings(cfg.DISTILL, DISTILLERS)
    if not DistillationObjective(DISTILLERS, **settings, samples="objects").compares_logits:
        return []
    own = teacher_config(cfg)
    (_, there), (key, here) = num_classes(own), num_classes(cfg)
    of_teacher = next(iter(own.DATASETS.TRAIN), "")
    names = known_names(teacher.class_names or (), of_teacher, there)
    data = loaded_names(next(iter(cfg.DATASETS.TRAIN), ""))
    if cfg.DISTILL.CLASSES:
        map_classes((data, here), (names, there), cfg.DISTILL.CLASSES, key)
        return []
    if there != here:
        ours = f"the student's data have {_count(here, data)}"
        if len(data) != here:  # of a registered dataset, which the config does not fit
            ours = f"the student {_count(here, ())} ({key})"
        raise UserError(
            f"The teacher {teacher.weights} has {_count(there, names)} and {ours}: a teacher must "
            "have the classes of the student's data, in their order, or DISTILL.CLASSES names "
            "those that both have."
        )
    check_positions(data, names)
    if names:
        return []
    return [
        f"{teacher.weights} holds no class names: only the number of its classes, {there}, could "
        "be compared with the data. Their order must be that of the data's category ids."
    ]


def _count(number: int, names: tuple[str, ...]) -> str:
    listed = f" ({join_names(names)})" if len(names) == number else ""
    return f"{number} classes{listed}"
