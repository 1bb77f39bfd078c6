"""Runs of a detector's teacher beside the student."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from eakd_det.modeling.recorder import Call
from eakd_det.modeling.teacher import log_output_difference

from .compared_heads import ComparedHeads


class WithDetectorTeacher(ComparedHeads):
    """ComparedHeads that starts the teacher's features, and prepares it at first.

    Attributes:
        teacher_levels: names of the teacher's maps that its heads read or that are compared.
    """

    teacher_levels: set[str]
    input_format: str

    def look_ahead(self, batched_inputs: list[dict[str, Any]]) -> None:
        """Start the teacher's features of a batch that `forward` will get after the present one.

        To be called in a stream that has the images, under the autocast of the forward pass, which
        takes the features if it gets the same image tensors. Nothing is started in evaluation,
        without gradients or methods, or before the first batch has prepared the teacher.

        On a GPU this holds one more set of the teacher's maps, `teacher_levels` alone. For 8 images
        of 800 x 1333, padded to 800 x 1344, and the levels p2 to p5 of an FPN with 256 channels
        these are 8 x 256 x (800 x 1344 / 16) x (1 + 1/4 + 1/16 + 1/64) values: 730 MB in float32,
        half of it in half precision. What its backbone allocates beside them is free again before
        the student's activations are there.
        """
        is_on = self._distils() and torch.is_grad_enabled() and self.teacher.ahead
        if is_on and self.teacher.is_prepared:
            self.teacher.look_ahead(batched_inputs, self.input_format, self.teacher_levels)

    def _distils(self) -> bool:
        return self.training and bool(self.objective.methods)

    def _begin_features(
        self, batched_inputs: list[dict[str, Any]]
    ) -> Callable[[], dict[str, Tensor]]:
        return self.teacher.begin_features(batched_inputs, self.input_format, self.teacher_levels)

    def _prepare_teacher(
        self, batched_inputs: list[dict[str, Any]]
    ) -> Callable[[dict[str, list[Call]], dict[str, Tensor]], None]:
        """Prepare the teacher, before the student's activations take memory.

        Returns:
            A function that logs how far that changes the outputs for this batch. It takes the
            recorded calls of the student and the features of the prepared teacher.
        """
        on_heads = self.compares_logits or self.compares_objectness
        before = self.teacher.with_own_heads() if on_heads else self.teacher
        old_features = self._begin_features(batched_inputs)()
        self.teacher.prepare(keep_levels=self.maps.uses_levels or self.compares_objectness)

        def log_difference(calls: dict[str, list[Call]], features: dict[str, Tensor]) -> None:
            outputs = [
                self._teacher_outputs(calls, *of_teacher)
                for of_teacher in ((before, old_features), (self.teacher, features))
            ]
            are_maps = bool(self.maps.levels) and not self.compares_logits
            log_output_difference(*outputs, are_maps=are_maps)

        return log_difference
