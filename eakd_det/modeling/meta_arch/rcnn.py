"""R-CNNs with a teacher."""

import torch
from detectron2.layers import cat
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.structures import Boxes, Instances
from torch import Tensor

from eakd_det.distillers import LogitPair
from eakd_det.modeling.compatibility import box_predictors, check_roi_heads
from eakd_det.modeling.poolers import assign_alike

from .distilled import Distilled


@META_ARCH_REGISTRY.register()
class DistillRCNN(Distilled, GeneralizedRCNN):
    """GeneralizedRCNN that learns from a teacher's class logits on its own sampled proposals.

    Faster, Mask and Cascade R-CNN; of a cascade each stage learns, with that stage's labels.
    """

    stock = GeneralizedRCNN

    def _check_heads(self, methods):
        check_roi_heads(self, self.teacher.model)

    def _num_classes(self):
        heads = self.roi_heads.num_classes, self.teacher.model.roi_heads.num_classes
        return (*heads, "MODEL.ROI_HEADS.NUM_CLASSES")

    def _logit_levels(self):
        return self.teacher.model.roi_heads.box_in_features

    def _recorded(self):
        stages = {f"losses{i}": p.losses for i, p in enumerate(box_predictors(self))}
        pooler = self.roi_heads.box_pooler
        levels = {}
        if assign_alike(pooler, self.teacher.model.roi_heads.box_pooler):
            levels = {f"level{i}": p for i, p in enumerate(pooler.level_poolers)}
        return {"box_pooler": pooler, **levels, **stages}

    def _logit_pairs(self, calls, teacher, features):
        # The boxes are the pooler's, not the proposals': TRAIN_ON_PRED_BOXES has replaced those.
        boxes = [call.args[1] for call in calls["box_pooler"]]
        levels = [calls[name] for name in calls if name.startswith("level")]
        pairs = []
        for stage, boxes_of_stage in enumerate(boxes):
            (student_logits, _), proposals = calls[f"losses{stage}"][0].args
            level_boxes = [level[stage].args[1] for level in levels] or None
            teacher_logits = teacher.roi_logits(features, boxes_of_stage, stage, level_boxes)
            pair = _pair(student_logits, teacher_logits, proposals, boxes_of_stage)
            pair.suffix = f"_stage{stage}" if len(boxes) > 1 else ""
            pairs.append(pair)
        return pairs


def _pair(
    student_logits: Tensor, teacher_logits: Tensor, proposals: list[Instances], boxes: list[Boxes]
) -> LogitPair:
    """Pair the logits of the sampled proposals.

    Args:
        student_logits, teacher_logits: (R, K + 1).
        proposals: of each image, with their labels.
        boxes: those of the proposals, as the student pooled them.
    """
    labels = cat([p.gt_classes for p in proposals])
    return LogitPair(
        student_logits,
        teacher_logits,
        labels,
        images=lambda: _images([len(p) for p in proposals], labels.device),
        normalizer=max(len(labels), 1),
        has_background=True,
        first_boxes=lambda: boxes[0].tensor,
    )


def _images(counts: list[int], device: torch.device) -> Tensor:
    """Return the index of the image of each proposal, given their number in each image."""
    images = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return images.to(device, non_blocking=True)
