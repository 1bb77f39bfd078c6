"""RetinaNet with a teacher."""

import torch
from detectron2.layers import cat
from detectron2.modeling import META_ARCH_REGISTRY, RetinaNet
from detectron2.structures import Boxes

from eakd_det.distillers import LogitPair
from eakd_det.modeling.compatibility import check_dense_heads
from eakd_det.modeling.padding import map_sizes

from .distilled import Distilled


@META_ARCH_REGISTRY.register()
class DistillRetinaNet(Distilled, RetinaNet):
    """RetinaNet that learns from a teacher's class logits on the anchors that count.

    The sum over the anchors is divided as the focal loss is: by the running number of foreground
    anchors.
    """

    stock = RetinaNet

    def _check_heads(self, methods):
        check_dense_heads(self, self.teacher.model, methods)

    def _num_classes(self):
        return self.num_classes, self.teacher.model.num_classes, "MODEL.RETINANET.NUM_CLASSES"

    def _logit_levels(self):
        return self.teacher.model.head_in_features

    def _recorded(self):
        return {"losses": self.losses}

    def _logit_pairs(self, calls, teacher, features):
        anchors, student_logits, labels, *_ = calls["losses"][0].args
        labels = torch.stack(labels)  # (B, anchors); -1 is ignored
        counted = labels >= 0
        chosen = counted.flatten().nonzero().squeeze(1)  # once, since the device waits for it
        sizes = map_sizes(calls["backbone"][0].output, self.head_in_features)
        teacher_logits = teacher.anchor_logits(features, sizes)
        return [
            LogitPair(
                student_logits=cat(student_logits, dim=1).flatten(0, 1)[chosen],
                teacher_logits=teacher_logits.flatten(0, 1)[chosen],
                labels=labels.flatten()[chosen],
                images=lambda: chosen // counted.shape[1],
                normalizer=self.loss_normalizer,
                sigmoid=True,
                has_background=True,
                first_boxes=lambda: Boxes.cat(anchors).tensor[counted[0]],
            )
        ]
