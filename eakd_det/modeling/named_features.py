"""Outputs of modules that DISTILL.FEATURES names, as feature maps to compare."""

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from eakd_det.distillers import name_pair
from eakd_det.utils.errors import UserError

from .compared_maps import LevelMaps, compare_levels
from .module_outputs import find_maps, only_map
from .recorder import Call
from .teacher import DetectorTeacher

EXAMPLE = '["backbone.bottom_up.res4", "backbone.bottom_up.res5"]'
NUM_IMAGES, SIZE = 2, 64  # of the forward pass that finds shapes; the fewest that are a batch


class NamedMaps(LevelMaps):
    """LevelMaps of any modules, which are named for the student and the teacher.

    A forward pass of both networks on small black images checks the modules and finds the channels.
    It changes neither the student nor a random state.
    """

    def __init__(
        self,
        features: Iterable[str | Sequence[str]],
        student: nn.Module,
        teacher: DetectorTeacher,
    ):
        """
        Args:
            features: pairs of names, the student's module and the teacher's, or one name for both.
            teacher: not prepared. Its features have the outputs of the named modules from here on.

        Raises:
            UserError: a name is unknown, or its module does not return one map in a forward pass.
        """
        pairs = [name_pair("DISTILL.FEATURES", entry, EXAMPLE) for entry in features]
        of_student, of_teacher = ([pair[side] for pair in pairs] for side in (0, 1))
        pixels = torch.zeros(len(student.pixel_mean), SIZE, SIZE)
        images = [{"image": pixels}] * NUM_IMAGES
        alike, order = copy.deepcopy(student).eval(), student.input_format
        run = partial(teacher.features, images, order)
        here = find_maps(alike, "student", of_student, partial(alike, images), NUM_IMAGES)
        there = find_maps(teacher.model, "teacher", of_teacher, run, NUM_IMAGES)
        teacher.record_outputs(of_teacher)
        finest_first = sorted(range(len(pairs)), key=lambda i: here[i].stride)
        super().__init__(
            [pairs[i] for i in finest_first],
            [[specs[i].channels for i in finest_first] for specs in (here, there)],
            [(here[i].stride, there[i].stride) for i in finest_first],
        )

    @property
    def uses_levels(self) -> bool:
        return False

    def sources(self, student: nn.Module) -> dict[str, nn.Module]:
        return {f"feature{i}": student.get_submodule(n) for i, (n, _) in enumerate(self.levels)}

    def student_maps(self, calls: Mapping[str, list[Call]]) -> list[Tensor]:
        """Return the maps (B, channels, H, W) from the recorded calls of the student's modules.

        Raises:
            UserError: a module has not returned one map.
        """
        num_images = len(calls["backbone"][0].args[0])
        return [
            only_map([c.output for c in calls[f"feature{i}"]], name, "student", num_images)
            for i, (name, _) in enumerate(self.levels)
        ]


def compare_maps(
    student: nn.Module, levels: Sequence[str], features: Sequence[str | Sequence[str]]
) -> LevelMaps:
    """Return the maps of a student and its teacher that methods compare; none without such methods.

    Args:
        student: in training, with its `objective` and its `teacher`.
        levels: names of the student's levels, DISTILL.LEVELS; all of them if empty.
        features: those of `NamedMaps`; without any the levels of the backbones are compared.

    Raises:
        UserError: see `NamedMaps` and `compare_levels`; or both `levels` and `features` are given,
            or a method runs the box heads on `features`.
    """
    heads = student.objective.methods_on("heads")
    if not heads and not student.objective.methods_on("features"):
        for key, value in (("LEVELS", levels), ("FEATURES", features)):
            if value:
                logging.getLogger(__name__).warning(
                    f"DISTILL.{key} has no effect: none of DISTILL.METHODS compares feature maps."
                )
        return LevelMaps()
    if not features:
        return compare_levels(student, student.teacher.model, levels)
    if levels:
        raise UserError(
            "DISTILL.LEVELS and DISTILL.FEATURES both choose the maps to compare: set one of them "
            "to ()."
        )
    if heads:
        raise UserError(
            f"DISTILL.FEATURES: {heads[0]} runs the box heads, which read the FPN's levels: set "
            f"DISTILL.FEATURES to (), or leave {heads[0]} out of DISTILL.METHODS."
        )
    return NamedMaps(features, student, student.teacher)
