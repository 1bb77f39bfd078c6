"""Whether a teacher's classes are the student's: by their names, and by its answers on the data."""

import logging
from collections import Counter
from collections.abc import Sequence

from detectron2.data import MetadataCatalog

from eakd_det.utils.errors import UserError

MOST_NAMES = 20  # that a message lists


def dataset_names(dataset: str) -> tuple[str, ...]:
    """Names of the classes of a registered dataset, as far as they are known by now."""
    return tuple(MetadataCatalog.get(dataset).get("thing_classes", ())) if dataset else ()


def check_class_order(student: Sequence[str], teacher: Sequence[str]) -> None:
    """Refuse classes in another order, and tell in the log which ones have other names.

    Args:
        student, teacher: names in the order of the classes; empty if they are not known.

    Raises:
        UserError: a name that both have stands at another place.
    """
    here, there = _places(student), _places(teacher)
    moved = [name for name in here if there.get(name, here[name]) != here[name]]
    if moved:
        raise UserError(
            f"The teacher's classes are in another order: {moved[0]!r} is its class "
            f"{there[moved[0]]} and the student's class {here[moved[0]]}. The teacher has "
            f"{_listed(teacher)}; the student's data have {_listed(student)}. Give the categories "
            "of the student's data the ids that put them in the teacher's order."
        )
    renamed = [f"{a!r} is {b!r}" for a, b in zip(student, teacher, strict=False) if a != b]
    if renamed:
        logging.getLogger(__name__).warning(
            f"Classes of the student's data have other names in the teacher's: {_listed(renamed)}."
        )


def _places(names: Sequence[str]) -> dict[str, int]:
    counts = Counter(names)
    return {name: i for i, name in enumerate(names) if counts[name] == 1}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more
