"""Comparison of the class names of teacher and student."""

import logging
from collections import Counter
from collections.abc import Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog

from eakd_det.utils.errors import UserError

from .custom import CUSTOM

MOST_NAMES = 20  # listed in a message


def dataset_names(dataset: str) -> tuple[str, ...]:
    """Return the class names of a registered dataset, empty if they are not known yet."""
    return tuple(MetadataCatalog.get(dataset).get("thing_classes", ())) if dataset else ()


def loaded_names(dataset: str) -> tuple[str, ...]:
    """Return the class names of a dataset, which is loaded if it is registered without them."""
    if dataset in DatasetCatalog and not dataset_names(dataset):
        DatasetCatalog.get(dataset)
    return dataset_names(dataset)


def known_names(class_names: Sequence[str], dataset: str, number: int) -> tuple[str, ...]:
    """Return the names of a detector's classes if that many are known, else nothing.

    Args:
        class_names: those in its checkpoint, which precede those of its dataset.
        dataset: the one that its config trains on. That of a --train-json is not the one of that
            name in this process.
    """
    of_dataset = () if dataset.startswith(CUSTOM) else dataset_names(dataset)
    return next((tuple(x) for x in (class_names, of_dataset) if len(x) == number), ())


def check_class_order(student: Sequence[str], teacher: Sequence[str]) -> None:
    """Raise if the classes are in another order; log a warning about those with other names.

    Args:
        student, teacher: names in the order of the classes; empty if they are not known.

    Raises:
        UserError: a name that both have is at different indices.
    """
    check_positions(student, teacher)
    renamed = [f"{a!r} is {b!r}" for a, b in zip(student, teacher, strict=False) if a != b]
    if renamed:
        logging.getLogger(__name__).warning(
            f"Classes of the student's data have other names in the teacher's: "
            f"{join_names(renamed)}."
        )


def check_positions(student: Sequence[str], teacher: Sequence[str]) -> None:
    """Raise UserError if a name that both have is at different indices."""
    here, there = _positions(student), _positions(teacher)
    moved = [name for name in here if there.get(name, here[name]) != here[name]]
    if moved:
        raise UserError(
            f"The teacher's classes are in another order: {moved[0]!r} is its class "
            f"{there[moved[0]]} and the student's class {here[moved[0]]}. The teacher has "
            f"{join_names(teacher)}; the student's data have {join_names(student)}. Change the "
            "category ids of the student's data so that the classes are in the teacher's order."
        )


def _positions(names: Sequence[str]) -> dict[str, int]:
    counts = Counter(names)
    return {name: i for i, name in enumerate(names) if counts[name] == 1}


def join_names(names: Sequence[str]) -> str:
    """Return the names with commas, at most MOST_NAMES of them."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more
