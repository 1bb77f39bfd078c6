"""Heads of a student and its teacher: the hooks that a meta-architecture defines, and their use."""

import logging
from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor

from eakd_det.data.class_names import check_class_order, dataset_names, loaded_names
from eakd_det.distillers import BoxHeads, ClassMap, DistillationObjective, LogitPair
from eakd_det.modeling.class_checks import map_classes, warn_of_one_class
from eakd_det.modeling.compared_maps import LevelMaps
from eakd_det.modeling.recorder import Call
from eakd_det.modeling.teacher import DetectorTeacher, WithTeacher
from eakd_det.utils.errors import UserError


class ComparedHeads(WithTeacher):
    """WithTeacher of a detector, whose heads and classes are compared with the teacher's.

    A subclass defines what to record of the student's heads, and how to read the records.

    Attributes:
        objective: computes the distillation losses.
        maps: the feature maps that are compared.
        compares_logits: whether a method, or the EA weight, needs logits.
        compares_objectness: whether a method compares the RPNs' logits.
        runs_heads: whether a method runs the box heads.
        dataset: the one that the student trains on; or empty.
        class_map: of the classes that both have in common; None for all.
    """

    teacher: DetectorTeacher
    objective: DistillationObjective
    maps: LevelMaps
    compares_logits: bool
    compares_objectness: bool
    runs_heads: bool
    dataset: str
    class_map: ClassMap | None
    _is_order_checked = False

    def _check_heads(self, methods: dict[str, dict[str, Any]]) -> None:
        """Raise UserError if the methods cannot compare the heads of student and teacher."""
        raise NotImplementedError

    def _num_classes(self) -> tuple[int, int, str]:
        """Return the number of the student's and the teacher's classes, and its config key."""
        raise NotImplementedError

    def _logit_levels(self) -> list[str]:
        """Return the names of the teacher's feature maps that its logits are computed from."""
        raise NotImplementedError

    def _recorded(self) -> dict[str, Any]:
        """Return the modules and bound methods to `record`, beside the backbone."""
        raise NotImplementedError

    def _logit_pairs(
        self, calls: dict[str, list[Call]], teacher: DetectorTeacher, features: dict[str, Tensor]
    ) -> list[LogitPair]:
        """Pair the recorded logits of the student with a teacher's, from its features."""
        raise NotImplementedError

    # Of R-CNNs; the checks refuse methods that need them of others.

    def _objectness(
        self, calls: dict[str, list[Call]], teacher: DetectorTeacher, features: dict[str, Tensor]
    ) -> LogitPair:
        """Pair the recorded objectness of the student with a teacher's, from its features."""
        raise NotImplementedError

    def _box_heads(self, calls: dict[str, list[Call]]) -> BoxHeads:
        """Return the box heads of student and teacher, on the recorded boxes."""
        raise NotImplementedError

    def _head_levels(self) -> list[int]:
        """Return the indices in `maps.levels` of those that the box heads read."""
        raise NotImplementedError

    # Built on the hooks.

    def _map_classes(self, classes: Sequence, methods: Collection[str]) -> ClassMap | None:
        """Check the classes of student and teacher; return the map of those in common, if not all.

        If no classes are compared, a warning is logged of DISTILL.CLASSES.

        Raises:
            UserError: see `map_classes`.
        """
        if not self.compares_logits:
            if methods and classes:
                logging.getLogger(__name__).warning(
                    "DISTILL.CLASSES has no effect: neither DISTILL.METHODS nor the EA weight "
                    "compares classes."
                )
            return None
        if classes and self.runs_heads:
            raise UserError(
                f"DISTILL.CLASSES: {self.objective.methods_on('heads')[0]} runs each box head on "
                "the other's feature maps, with all of its classes. Choose other DISTILL.METHODS, "
                "or a teacher of the student's classes."
            )
        here, there, key = self._num_classes()
        names = loaded_names(self.dataset) if classes else ()
        class_map = map_classes((names, here), (self.teacher.names_of(there), there), classes, key)
        warn_of_one_class(len(class_map.names) if class_map else here, methods)
        return class_map

    def _mapped_pairs(
        self, calls: dict[str, list[Call]], teacher: DetectorTeacher, features: dict[str, Tensor]
    ) -> list[LogitPair]:
        """Return `_logit_pairs` over the classes that are compared."""
        pairs = self._logit_pairs(calls, teacher, features)
        return pairs if self.class_map is None else [self.class_map(pair) for pair in pairs]

    def _check_class_order(self, pair: LogitPair) -> None:
        """Compare the teacher's class names with the dataset's, in the first batch.

        The data are registered and loaded by then.
        """
        if self._is_order_checked:
            return
        self._is_order_checked = True
        if self.class_map is None:
            names = self.teacher.names_of(pair.num_classes) or self.teacher.class_names
            check_class_order(dataset_names(self.dataset), names)

    def _levels_of_teacher(self) -> set[str]:
        """Return the names of the teacher's maps that its heads read or that are compared."""
        levels = set(self.maps.of_teacher)
        if self.compares_logits:
            levels.update(self._logit_levels())
        if self.compares_objectness:
            levels.update(self.teacher.model.proposal_generator.in_features)
        return levels

    def _teacher_outputs(
        self, calls: dict[str, list[Call]], teacher: DetectorTeacher, features: dict[str, Tensor]
    ) -> list[Tensor]:
        """Return a teacher's logits if methods compare them, else its maps, or its objectness."""
        if self.compares_logits:
            return [pair.teacher_logits for pair in self._mapped_pairs(calls, teacher, features)]
        if self.maps.levels:
            return self.maps.teacher_maps(features)
        return [self._objectness(calls, teacher, features).teacher_logits]
