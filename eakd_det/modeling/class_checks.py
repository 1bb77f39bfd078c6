"""Checks, before the first step, of the classes of a student and its teacher."""

import logging
from collections.abc import Iterable, Sequence

from eakd_det.distillers import DISTILLERS, ClassMap, LogitDistiller, match_classes
from eakd_det.utils.errors import UserError


def map_classes(
    student: tuple[Sequence[str], int],
    teacher: tuple[Sequence[str], int],
    classes: Sequence,
    key: str,
) -> ClassMap | None:
    """Return the map of DISTILL.CLASSES; None without it, for classes that are the same.

    Args:
        student, teacher: names of the classes of each, empty if they are not known, and their
            number.
        classes: DISTILL.CLASSES; see `match_classes`.
        key: config key of the student's number of classes.

    Raises:
        UserError: without `classes` the numbers differ; with them, names are not known or wrong.
    """
    (names, here), (of_teacher, there) = student, teacher
    if not classes:
        if here != there:
            raise UserError(
                f"The student has {here} classes and the teacher {there}: set {key} to the "
                "teacher's number, or TEACHER.CONFIG_FILE and TEACHER.WEIGHTS to a teacher of the "
                "student's classes, or pair the names of the classes that both have in "
                "DISTILL.CLASSES."
            )
        return None
    if len(names) != here:
        raise UserError(
            f"DISTILL.CLASSES: the student has {here} classes ({key}), and its training data name "
            f"{len(names)}. The names are those of --train-json's categories, or thing_classes in "
            "the metadata of the first dataset in DATASETS.TRAIN."
        )
    if len(of_teacher) != there:
        raise UserError(
            f"DISTILL.CLASSES: the names of the teacher's {there} classes are not known. They are "
            'read from its checkpoint (a list "class_names" beside "model", which runs of this '
            "package write), or are those of the registered dataset in DATASETS.TRAIN of its "
            "config."
        )
    return match_classes(classes, names, of_teacher)


def warn_of_one_class(number: int, methods: Iterable[str]) -> None:
    """Log a warning of each method that is limited by a single foreground class."""
    for name in methods if number == 1 else ():
        distiller = DISTILLERS[name]
        if isinstance(distiller, LogitDistiller) and distiller.note_on_one_class:
            logging.getLogger(__name__).warning(
                f"{name} with one foreground class: {distiller.note_on_one_class}."
            )
