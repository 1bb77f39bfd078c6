"""Feature maps of a detector and its teacher that methods compare."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from .levels import choose_levels, match_levels
from .padding import Size, crop_to_common
from .recorder import Call


class LevelMaps:
    """Levels of both backbones, finest first: of the same stride, if they have any.

    Attributes:
        levels: names of the student's and the teacher's levels.
        channels: those of the student's maps, and those of the teacher's: the arguments of the
            methods' `build_adapter`; empty if no maps are compared.
        of_teacher: names of the teacher's maps.
    """

    def __init__(
        self,
        levels: Sequence[tuple[str, str]] = (),
        channels: Sequence[list[int]] = (),
        strides: Sequence[tuple[int, int]] = (),
    ):
        """
        Args:
            strides: of the student's and the teacher's map of each level, in pixels.
        """
        self.levels, self.channels, self._strides = list(levels), channels, strides
        self.of_teacher = [name for _, name in levels]

    @property
    def uses_levels(self) -> bool:
        """True if the maps are levels of the backbones' outputs."""
        return bool(self.levels)

    def sources(self, student: nn.Module) -> dict[str, nn.Module]:
        """Return the modules of the student to `record`, beside its backbone."""
        return {}

    def student_maps(self, calls: Mapping[str, list[Call]]) -> list[Tensor]:
        """Return the maps (B, channels, H, W) from the recorded call of the student's backbone."""
        features = calls["backbone"][0].output
        return [features[name] for name, _ in self.levels]

    def teacher_maps(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the maps (B, channels, H, W) among the teacher's features."""
        return [features[name] for name in self.of_teacher]

    def compared(
        self, calls: Mapping[str, list[Call]], features: Mapping[str, Tensor], padded_size: Size
    ) -> tuple[list[Tensor], list[Tensor], Size]:
        """Return the student's and the teacher's maps, and the size in pixels that they cover.

        They are cropped to what both cover. Maps of other strides differ in size nevertheless.

        Args:
            padded_size: of the student's images, in pixels.
        """
        maps = self.student_maps(calls), self.teacher_maps(features)
        return crop_to_common(*maps, self._strides, padded_size)


def compare_levels(student: nn.Module, teacher: nn.Module, names: Sequence[str] = ()) -> LevelMaps:
    """Return the levels of two detectors as maps to compare.

    Args:
        names: of the student's maps, DISTILL.LEVELS; all of them if empty.

    Raises:
        UserError: no level has a counterpart, or a name is unknown.
    """
    levels = choose_levels(match_levels(student, teacher), names)
    shapes = [model.backbone.output_shape() for model in (student, teacher)]
    channels = [
        [shape[name].channels for name in names]
        for shape, names in zip(shapes, zip(*levels, strict=True), strict=True)
    ]
    here, there = shapes
    return LevelMaps(levels, channels, [(here[a].stride, there[b].stride) for a, b in levels])
