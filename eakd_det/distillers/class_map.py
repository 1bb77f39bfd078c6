"""Pairs of a student's and a teacher's classes, DISTILL.CLASSES, where only some are in common."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from eakd_det.losses.reduction import at_least_float32
from eakd_det.utils.errors import UserError

from .batch import LogitPair
from .settings import name_pair

MOST_NAMES = 3  # nearest ones, in a message


@dataclass(frozen=True)
class ClassMap:
    """Classes that student and teacher have in common; letters are those of `LogitPair`.

    M counts them. An object of a class that the student does not have is background for it.

    Attributes:
        names: (M) the student's names.
        student, teacher: (M) indices of the classes in each detector.
        num_student, num_teacher: number of all classes of each, without background.
    """

    names: tuple[str, ...]
    student: tuple[int, ...]
    teacher: tuple[int, ...]
    num_student: int
    num_teacher: int

    def __call__(self, pair: LogitPair) -> LogitPair:
        """Return the pair over the common classes alone, whose label M is background.

        The teacher's probability of classes that the student lacks goes to background. Samples
        labelled with a class that the teacher lacks are left out: the student learns them from the
        labels. Its remaining logits are those of the common classes and of background; a sigmoid
        has the columns of the common classes alone.
        """
        labels = self._labels(pair.labels)
        mapped = replace(
            pair,
            student_logits=self._student_logits(pair),
            teacher_logits=self._teacher_logits(pair),
            student_deltas=_deltas(pair.student_deltas, self.student),
            teacher_deltas=_deltas(pair.teacher_deltas, self.teacher),
            labels=labels,
        )
        if len(self.student) == self.num_student:
            return mapped
        return _keep(mapped, (labels >= 0).nonzero().squeeze(1))

    def _labels(self, labels: Tensor) -> Tensor:
        """Return the labels of the common classes, M for background, -1 for other classes."""
        rank = {label: i for i, label in enumerate((*self.student, self.num_student))}
        table = tuple(rank.get(label, -1) for label in range(self.num_student + 1))
        return _index(table, labels.device)[labels]

    def _student_logits(self, pair: LogitPair) -> Tensor:
        logits = pair.student_logits
        background = () if pair.sigmoid else (self.num_student,)
        return logits[:, _index((*self.student, *background), logits.device)]

    def _teacher_logits(self, pair: LogitPair) -> Tensor:
        logits = pair.teacher_logits
        common = logits[:, _index(self.teacher, logits.device)]
        if pair.sigmoid:
            return common
        rest = tuple(i for i in range(self.num_teacher + 1) if i not in self.teacher)
        others = at_least_float32(logits)[:, _index(rest, logits.device)]
        return torch.cat([common.to(others), others.logsumexp(dim=1, keepdim=True)], dim=1)


def match_classes(
    classes: Iterable[str | Sequence[str]], student: Sequence[str], teacher: Sequence[str]
) -> ClassMap:
    """Find the classes that DISTILL.CLASSES names.

    Args:
        classes: a name that both have, or the pair of the student's and the teacher's name.
        student, teacher: names in the order of the classes of each.

    Raises:
        UserError: an element is neither, or a name is unknown (the message has the nearest ones) or
            occurs twice.
    """
    pairs = [name_pair("DISTILL.CLASSES", x, '["jumper", "pullover"]') for x in classes]
    of_student, of_teacher = (
        _indices([pair[side] for pair in pairs], whose, names)
        for side, (whose, names) in enumerate([("student", student), ("teacher", teacher)])
    )
    names = tuple(name for name, _ in pairs)
    return ClassMap(names, of_student, of_teacher, len(student), len(teacher))


def _indices(chosen: Sequence[str], whose: str, names: Sequence[str]) -> tuple[int, ...]:
    """Return the indices of the chosen names of the student or the teacher."""
    for name in chosen:
        if name not in names:
            near = difflib.get_close_matches(name, names, MOST_NAMES)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else _listed(names)
            raise UserError(f"DISTILL.CLASSES: the {whose} has no class {name!r}; {hint}")
        if chosen.count(name) > 1:
            raise UserError(
                f"DISTILL.CLASSES pairs the {whose}'s class {name!r} twice: a class has one "
                "counterpart."
            )
    return tuple(names.index(name) for name in chosen)


def _listed(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > 20 else ""
    return f"the classes are {', '.join(names[:20])}{more}."


def _deltas(deltas: Tensor | None, classes: tuple[int, ...]) -> Tensor | None:
    """Return the columns of classes in deltas (R, 4 K); deltas (R, 4) of all classes as they are.

    A single class has (R, 4) either way.
    """
    if deltas is None or deltas.shape[1] == 4:
        return deltas
    return deltas.unflatten(1, (-1, 4))[:, _index(classes, deltas.device)].flatten(1)


def _keep(pair: LogitPair, rows: Tensor) -> LogitPair:
    """Return a pair of some of the samples, those at `rows`, with the same normaliser."""
    images, target_deltas, first_boxes = pair.images, pair.target_deltas, pair.first_boxes

    def boxes_of_first() -> Tensor:
        assert first_boxes is not None
        boxes = first_boxes()
        return boxes[rows[rows < len(boxes)]]  # the first image's samples come first

    def of(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[rows]

    return replace(
        pair,
        student_logits=pair.student_logits[rows],
        teacher_logits=pair.teacher_logits[rows],
        labels=pair.labels[rows],
        student_deltas=of(pair.student_deltas),
        teacher_deltas=of(pair.teacher_deltas),
        images=images and (lambda: images()[rows]),
        target_deltas=target_deltas and (lambda: target_deltas()[rows]),
        first_boxes=first_boxes and boxes_of_first,
    )


@lru_cache(maxsize=64)
def _index(values: tuple[int, ...], device: torch.device) -> Tensor:
    """Return indices as a tensor, which is copied to the device once."""
    return torch.tensor(values, device=device)
