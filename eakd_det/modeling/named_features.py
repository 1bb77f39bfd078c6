"""Outputs of modules that DISTILL.FEATURES names, as feature maps to compare."""

import copy
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eakd_det.utils.errors import UserError

from .compared_maps import LevelMaps, compare_levels
from .recorder import Call
from .teacher import DetectorTeacher

NUM_IMAGES, SIZE = 2, 64  # of the forward pass that finds shapes; the fewest that are a batch
MOST_NAMES = 5  # that a message lists


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
        pairs = [_pair(entry) for entry in features]
        of_student, of_teacher = ([pair[side] for pair in pairs] for side in (0, 1))
        pixels = torch.zeros(len(student.pixel_mean), SIZE, SIZE)
        images = [{"image": pixels}] * NUM_IMAGES
        alike, order = copy.deepcopy(student).eval(), student.input_format
        maps = [
            _find(alike, "student", of_student, lambda: alike(images)),
            _find(teacher.model, "teacher", of_teacher, lambda: teacher.features(images, order)),
        ]
        teacher.record_outputs(of_teacher)
        finest_first = sorted(range(len(pairs)), key=lambda i: -maps[0][i].shape[2])
        super().__init__(
            [pairs[i] for i in finest_first],
            [[of_side[i].shape[1] for i in finest_first] for of_side in maps],
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
            _only_map([c.output for c in calls[f"feature{i}"]], name, "student", num_images)
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


def _pair(entry: str | Sequence[str]) -> tuple[str, str]:
    names = [entry, entry] if isinstance(entry, str) else entry
    is_pair = isinstance(names, Sequence) and len(names) == 2
    if not (is_pair and all(isinstance(name, str) for name in names)):
        raise UserError(
            f"DISTILL.FEATURES: {entry!r} is neither a module's name nor a pair of them, "
            '["student\'s", "teacher\'s"].'
        )
    return names[0], names[1]


@torch.no_grad()
def _find(model: nn.Module, side: str, names: list[str], run: Callable[[], Any]) -> list[Tensor]:
    """Return the maps that the named modules of a model return in a forward pass."""
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            raise UserError(
                f"DISTILL.FEATURES: the {side} has no module {name!r}; "
                f"{_nearest(name, list(modules))}."
            )
    outputs: dict[str, list] = {name: [] for name in names}
    versions = {}

    def hook(name: str) -> Callable:
        def store(_: nn.Module, __: tuple, output: Any) -> None:
            outputs[name].append(output)
            versions[name] = output._version if isinstance(output, Tensor) else 0

        return store

    handles = [modules[name].register_forward_hook(hook(name)) for name in outputs]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    maps = [_only_map(outputs[name], name, side, NUM_IMAGES) for name in names]
    for name, x in zip(names, maps, strict=True):
        if x._version != versions[name]:
            raise UserError(
                f"DISTILL.FEATURES: the output of the {side}'s {name} is changed in place by a "
                "later operation (an addition or a ReLU, for example): name the module around it."
            )
    return maps


def _only_map(outputs: list[Any], name: str, side: str, num_images: int) -> Tensor:
    """Return the output of a module's only call, if it is a map of each image.

    Raises:
        UserError: there are more calls or none, or the output is something else.
    """
    start = f"DISTILL.FEATURES: the {side}'s {name} "
    if not outputs:
        reason = "; only its backbone runs" if side == "teacher" else ""
        raise UserError(f"{start}is not called in a forward pass{reason}: name another module.")
    if len(outputs) > 1:
        raise UserError(
            f"{start}is called {len(outputs)} times in a forward pass: name a module that is "
            "called once."
        )
    [x] = outputs
    if not (isinstance(x, Tensor) and x.dim() == 4 and len(x) == num_images):
        raise UserError(
            f"{start}returns {_describe(x)} for {num_images} images: name a module that returns "
            "one tensor (images, channels, height, width)."
        )
    return x


def _describe(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, dict):
        return f"a dict of {', '.join(map(str, output))}"
    if isinstance(output, list | tuple):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"


def _nearest(name: str, names: list[str]) -> str:
    """Describe the names that are nearest to a wrong one: its endings first."""
    ends = [known for known in names if known.endswith(f".{name}")]
    near = list(dict.fromkeys(ends + difflib.get_close_matches(name, names, MOST_NAMES)))
    if near:
        return f"the nearest are {', '.join(near[:MOST_NAMES])}"
    return f"its parts are {', '.join(known for known in names if known and '.' not in known)}"
