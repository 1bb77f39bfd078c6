"""R-CNNs with a teacher."""

import torch
from detectron2.layers import cat
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.structures import Boxes, Instances
from torch import Tensor

from eakd_det.distillers import BoxHeads, LogitPair
from eakd_det.modeling.box_deltas import box_deltas
from eakd_det.modeling.compatibility import box_predictors, check_roi_heads
from eakd_det.modeling.head_checks import check_box_heads, check_rpns, find_head_levels
from eakd_det.modeling.padding import map_sizes
from eakd_det.modeling.poolers import assign_alike, pool
from eakd_det.modeling.recorder import Call

from .distilled import Distilled


@META_ARCH_REGISTRY.register()
class DistillRCNN(Distilled, GeneralizedRCNN):
    """GeneralizedRCNN that learns from a teacher's outputs on its own sampled proposals.

    Faster, Mask and Cascade R-CNN; of a cascade each stage learns, with that stage's labels.
    """

    stock = GeneralizedRCNN

    def _check_heads(self, methods):
        if self.compares_logits:
            check_roi_heads(self, self.teacher.model)
        if self.compares_objectness:
            check_rpns(self, self.teacher.model)
        if self.runs_heads:
            check_box_heads(self, self.teacher.model)

    def _num_classes(self):
        heads = self.roi_heads.num_classes, self.teacher.model.roi_heads.num_classes
        return (*heads, "MODEL.ROI_HEADS.NUM_CLASSES")

    def _logit_levels(self):
        return self.teacher.model.roi_heads.box_in_features

    def _recorded(self):
        sources = {}
        if self.compares_objectness:
            sources["rpn"] = self.proposal_generator.losses
        if self.compares_logits:
            pooler = self.roi_heads.box_pooler
            sources["box_pooler"] = pooler
            if assign_alike(pooler, self.teacher.model.roi_heads.box_pooler):
                sources |= {f"level{i}": p for i, p in enumerate(pooler.level_poolers)}
            sources |= {f"losses{i}": p.losses for i, p in enumerate(box_predictors(self))}
        return sources

    def _logit_pairs(self, calls, teacher, features):
        # The boxes are the pooler's, not the proposals': TRAIN_ON_PRED_BOXES has replaced those.
        boxes = [call.args[1] for call in calls["box_pooler"]]
        pairs = []
        for stage, boxes_of_stage in enumerate(boxes):
            predictions, proposals = calls[f"losses{stage}"][0].args
            level_boxes = _level_boxes(calls, stage)
            outputs = teacher.roi_outputs(features, boxes_of_stage, stage, level_boxes)
            units = self._units(teacher, stage)
            pair = _pair(predictions, outputs, proposals, boxes_of_stage, units)
            pair.suffix = f"_stage{stage}" if len(boxes) > 1 else ""
            pairs.append(pair)
        return pairs

    def _units(self, teacher, stage):
        """Return the weights of the box deltas of the student's and the teacher's stage."""
        theirs = box_predictors(teacher.model)
        predictors = box_predictors(self)[stage], theirs[min(stage, len(theirs) - 1)]
        return [predictor.box2box_transform.weights for predictor in predictors]

    def _objectness(self, calls, teacher, features):
        _, student_logits, labels, *_ = calls["rpn"][0].args
        sizes = map_sizes(calls["backbone"][0].output, self.proposal_generator.in_features)
        teacher_logits = teacher.objectness(features, sizes)
        labels = torch.stack(labels)  # (B, anchors); 1 object, 0 background, -1 not sampled
        chosen = (labels >= 0).flatten().nonzero().squeeze(1)  # once: the device waits for it
        ours, theirs = (
            cat(x, dim=1).flatten()[chosen, None] for x in (student_logits, teacher_logits)
        )
        return LogitPair(
            ours,
            theirs,
            labels=1 - labels.flatten()[chosen].long(),
            normalizer=self.proposal_generator.batch_size_per_image * len(labels),
            sigmoid=True,
            has_background=True,
        )

    def _box_heads(self, calls):
        heads, boxes = self.roi_heads, calls["box_pooler"][0].args[1]
        level_boxes = _level_boxes(calls, 0)

        def student(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
            pooled = pool(heads.box_pooler, maps, boxes, level_boxes)
            return heads.box_predictor(heads.box_head(pooled))

        return BoxHeads(
            student, lambda maps: self.teacher.box_head(maps, boxes, level_boxes=level_boxes)
        )

    def _head_levels(self):
        return find_head_levels(self, self.teacher.model, self.maps.levels)


def _level_boxes(calls: dict[str, list[Call]], stage: int) -> list[Tensor] | None:
    """Return the boxes that a stage has pooled on each level, None if these were not recorded."""
    levels = [calls[name] for name in calls if name.startswith("level")]
    return [level[stage].args[1] for level in levels] or None


def _pair(
    predictions: tuple[Tensor, Tensor],
    teacher_outputs: tuple[Tensor, Tensor],
    proposals: list[Instances],
    boxes: list[Boxes],
    units: list[tuple[float, ...]],
) -> LogitPair:
    """Pair the logits and the box deltas of the sampled proposals.

    Args:
        predictions, teacher_outputs: logits (R, K + 1), and deltas (R, 4) or (R, 4 K).
        proposals: of each image, with their labels.
        boxes: those of the proposals, as the student pooled them.
        units: weights of the deltas of student and teacher.
    """
    labels = cat([p.gt_classes for p in proposals])
    student, teacher = units
    return LogitPair(
        predictions[0],
        teacher_outputs[0],
        labels,
        images=lambda: _images([len(p) for p in proposals], labels.device),
        normalizer=max(len(labels), 1),
        has_background=True,
        first_boxes=lambda: boxes[0].tensor,
        student_deltas=predictions[1],
        teacher_deltas=teacher_outputs[1],
        target_deltas=lambda: _targets(proposals, boxes, student),
        delta_scale=tuple(a / b for a, b in zip(student, teacher, strict=True)),
    )


def _targets(proposals: list[Instances], boxes: list[Boxes], unit: tuple[float, ...]) -> Tensor:
    """Return the (R, 4) deltas from the sampled boxes to the ground truth that they match.

    An image without ground truth has none; its rows, all background, have no meaning.
    """
    truth = [
        (p.gt_boxes if p.has("gt_boxes") else b).tensor
        for p, b in zip(proposals, boxes, strict=True)
    ]
    return box_deltas(Boxes.cat(boxes).tensor, cat(truth), unit)


def _images(counts: list[int], device: torch.device) -> Tensor:
    """Return the index of the image of each proposal, given their number in each image."""
    images = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return images.to(device, non_blocking=True)
