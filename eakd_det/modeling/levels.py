"""Levels of two backbones: which are compared."""

import difflib
import logging
from collections.abc import Sequence

from torch import nn

from eakd_det.utils.errors import UserError


def match_levels(student: nn.Module, teacher: nn.Module) -> list[tuple[str, str]]:
    """Return the names of levels with the same stride in both backbones, finest first.

    Levels without a counterpart are left out; the log names them. Backbones without a common stride
    are paired in order, for adapters that resize.

    Raises:
        UserError: no stride is common, and the numbers of levels differ.
    """
    here, there = (_levels(model) for model in (student, teacher))
    common = sorted(here.keys() & there.keys())
    if common:
        alone = [f"the student's {_level(here, s)}" for s in sorted(here.keys() - there.keys())]
        alone += [f"the teacher's {_level(there, s)}" for s in sorted(there.keys() - here.keys())]
        if alone:
            logging.getLogger(__name__).info(
                f"Not compared: {' and '.join(alone)}, without a counterpart of the same stride."
            )
        return [(here[stride], there[stride]) for stride in common]
    names = [" and ".join(_level(levels, s) for s in sorted(levels)) for levels in (here, there)]
    if len(here) != len(there):
        raise UserError(
            f"DISTILL.METHODS compares feature maps, but the student has {names[0]} and the "
            f"teacher {names[1]}: give both backbones a level of the same stride, or as many "
            "levels."
        )
    logging.getLogger(__name__).info(
        f"Levels are compared in order, since none has the same stride: the student's {names[0]} "
        f"with the teacher's {names[1]}."
    )
    return [(here[a], there[b]) for a, b in zip(sorted(here), sorted(there), strict=True)]


def _level(levels: dict[int, str], stride: int) -> str:
    return f"{levels[stride]} (stride {stride})"


def _levels(model: nn.Module) -> dict[int, str]:
    """Return stride -> name. Of several levels with a stride it is the first, which heads read."""
    shapes = reversed(model.backbone.output_shape().items())
    return {spec.stride: name for name, spec in shapes}


def choose_levels(matched: list[tuple[str, str]], names: Sequence[str]) -> list[tuple[str, str]]:
    """Keep the levels that are named, in the order of `matched`; all of them without names.

    Args:
        matched: names of the student's and the teacher's map of each level.
        names: of the student's maps, DISTILL.LEVELS.

    Raises:
        UserError: a name is unknown.
    """
    known = [student for student, _ in matched]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1, cutoff=0.3)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UserError(
                f"DISTILL.LEVELS: {name!r} is no feature map that student and teacher share.{hint} "
                f"They share {', '.join(known)}."
            )
    return [pair for pair in matched if not names or pair[0] in names]
