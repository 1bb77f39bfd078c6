"""Whether a teacher's classes are the student's: by their names, and by its answers on the data."""

import logging
from collections import Counter
from collections.abc import Sequence

import torch
from detectron2.data import MetadataCatalog
from torch import Tensor

from eakd_det.utils.errors import UserError

MOST_NAMES = 20  # that a message lists
ENOUGH = 100  # samples for a share in percent
# A teacher that is worth learning from is right about more training samples; by chance, or with its
# classes in another order, it is about the share of one class, of two or more.
LOW = 0.5


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


class LabelAgreement:
    """Number of training samples that a teacher calls by their label, counted on their device.

    Attributes:
        is_open: whether samples are still counted.
    """

    def __init__(self, samples: str, causes: str, *, is_open: bool = True):
        """
        Args:
            samples: what they are, in the plural.
            causes: what a low share may come from, for the log.
        """
        self.samples, self.causes, self.is_open = samples, causes, is_open
        self._counts: Tensor | int = 0

    @torch.no_grad()
    def count(self, teacher_logits: Tensor, labels: Tensor) -> None:
        """
        Args:
            teacher_logits: (R, K) of the K classes that a label can be.
            labels: (R,); others than these classes (background, for one) are left out.
        """
        number = teacher_logits.shape[1]
        is_labelled = (labels >= 0) & (labels < number)
        is_right = is_labelled & (teacher_logits.argmax(dim=1) == labels)
        self._counts = self._counts + torch.stack([is_right.sum(), is_labelled.sum()])
        self.is_open = number > 1  # one class is always right

    def report(self) -> None:
        """Read the counts from the device, and log the share if they are enough: once."""
        right, number = self._counts.tolist()
        if number < ENOUGH:
            return
        self.is_open = False
        text = (
            f"The teacher calls {100 * right / number:.0f} % of the training {self.samples} by "
            f"their label ({number} looked at)"
        )
        if right < LOW * number:
            logging.getLogger(__name__).warning(f"{text}. {self.causes}")
        else:
            logging.getLogger(__name__).info(text)
