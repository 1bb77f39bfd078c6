"""R-CNNs with a teacher."""

import torch
from detectron2.layers import cat
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.structures import Boxes, Instances
from torch import Tensor

from eakd_det.distillers import LogitPair
from eakd_det.modeling.compatibility import box_predictors, check_roi_heads

from .distilled import Distilled


@META_ARCH_REGISTRY.register()
class DistillRCNN(Distilled, GeneralizedRCNN):
    """GeneralizedRCNN that learns from a teacher's class logits on its own sampled proposals.

    Faster, Mask and Cascade R-CNN; of a cascade each stage learns, with that stage's labels.
    """

    stock = GeneralizedRCNN

    def _check_heads(self, methods):
        check_roi_heads(self, self.teacher.model, methods)

    def _logit_levels(self):
        return self.teacher.model.roi_heads.box_in_features

    def _recorded(self):
        stages = {f"losses{i}": p.losses for i, p in enumerate(box_predictors(self))}
        return {"box_pooler": self.roi_heads.box_pooler, **stages}

    def _logit_pairs(self, calls, teacher, features):
        # The boxes are the pooler's, not the proposals': TRAIN_ON_PRED_BOXES has replaced those.
        boxes = [call.args[1] for call in calls["box_pooler"]]
        pairs = []
        for stage, boxes_of_stage in enumerate(boxes):
            (student_logits, _), proposals = calls[f"losses{stage}"][0].args
            teacher_logits = teacher.roi_logits(features, boxes_of_stage, stage)
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
    counts = torch.tensor([len(p) for p in proposals])
    images = torch.arange(len(counts)).repeat_interleave(counts)
    return LogitPair(
        student_logits,
        teacher_logits,
        labels,
        images=images.to(labels.device, non_blocking=True),
        normalizer=max(len(labels), 1),
        has_background=True,
        first_boxes=lambda: boxes[0].tensor,
    )
