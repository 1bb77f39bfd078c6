"""Outputs of a teacher's heads for the ROIs and anchors of a student."""

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from detectron2.structures import Boxes
from torch import Tensor, nn

from eakd_det.losses.reduction import at_least_float32
from eakd_det.modeling.padding import Size, extend
from eakd_det.modeling.poolers import pool

from .frozen import FrozenTeacher

Teacher = TypeVar("Teacher", bound="TeacherHeads")


class TeacherHeads(FrozenTeacher):
    """FrozenTeacher whose heads, a stock detector's, take feature maps that are there already."""

    @torch.no_grad()
    def roi_outputs(
        self,
        features: dict[str, Tensor],
        boxes: list[Boxes],
        stage: int = 0,
        level_boxes: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return class logits, (R, K + 1), and box deltas, (R, 4) or (R, 4 K), of boxes.

        Args: those of `box_head`, but `features` by their level.
        """
        maps = [features[level] for level in self.model.roi_heads.box_in_features]
        return self.box_head(maps, boxes, stage, level_boxes)

    def box_head(
        self,
        maps: list[Tensor],
        boxes: list[Boxes],
        stage: int = 0,
        level_boxes: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return what `roi_outputs` does; gradients pass through to the maps.

        ROIs are pooled in float32, since a pooler rounds the boxes to the precision of the maps.

        Args:
            maps: of the levels that the box head reads, finest first.
            boxes: of each image, in absolute pixels.
            stage: of a cascade. A teacher without it uses its last.
            level_boxes: those of `pool_assigned`, if the student has assigned the boxes.
        """
        heads = self.model.roi_heads
        pooled = pool(heads.box_pooler, [at_least_float32(x) for x in maps], boxes, level_boxes)
        box_heads, predictors = heads.box_head, heads.box_predictor
        if isinstance(predictors, nn.ModuleList):
            stage = min(stage, len(predictors) - 1)
            box_heads, predictors = box_heads[stage], predictors[stage]
        with self.context():
            if self.is_prepared and self.precision.dtype is not None:
                pooled = pooled.to(self.precision.dtype)
            return predictors(box_heads(pooled))

    @torch.no_grad()
    def objectness(self, features: dict[str, Tensor], sizes: Sequence[Size]) -> list[Tensor]:
        """Return the RPN's logits of the student's anchors of each level, (B, H W A), finest first.

        Args:
            sizes: as of `anchor_logits`.
        """
        rpn = self.model.proposal_generator
        maps = [features[level] for level in rpn.in_features]
        logits = self._on_sizes(lambda maps: rpn.rpn_head(maps)[0], maps, sizes)
        return [x.permute(0, 2, 3, 1).flatten(1) for x in logits]

    @torch.no_grad()
    def anchor_logits(self, features: dict[str, Tensor], sizes: Sequence[Size]) -> Tensor:
        """Return a RetinaNet's class logits of the student's anchors, (B, anchors, K).

        Args:
            sizes: (height, width) of the student's maps, finest level first. Another padding may
                give the teacher's other sizes.
        """
        model, head = self.model, self.model.head
        maps = [features[level] for level in model.head_in_features]
        logits = self._on_sizes(
            lambda maps: [head.cls_score(head.cls_subnet(x)) for x in maps], maps, sizes
        )
        (logits,) = model._transpose_dense_predictions([logits], [model.num_classes])
        return torch.cat(logits, dim=1)

    def _on_sizes(
        self,
        head: Callable[[list[Tensor]], list[Tensor]],
        maps: list[Tensor],
        sizes: Sequence[Size],
    ) -> list[Tensor]:
        """Return the outputs of a convolutional head, of sizes that may be those of other maps."""
        maps = [extend(x, size) for x, size in zip(maps, sizes, strict=True)]
        with self.context():
            outputs = head(maps)
        return [x[..., :height, :width] for x, (height, width) in zip(outputs, sizes, strict=True)]

    def with_own_heads(self: Teacher) -> Teacher:
        """Return the teacher with a copy of the heads, which `prepare` of this one leaves alone.

        The backbone is shared, and must not be called.
        """
        other, backbone = copy.copy(self), self.model.backbone
        other.model = copy.deepcopy(self.model, {id(backbone): backbone})
        return other
