"""Detectors of torchvision as detectors of Detectron2, for teachers.

The backbone, the convolutions of the heads and the box heads are torchvision's modules. The last
layers are copied in Detectron2's order: background behind the other classes, and anchors by size,
then by aspect ratio.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torchvision
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, GeneralizedRCNN, RetinaNet
from detectron2.modeling.anchor_generator import BufferList, DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator.rpn import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, StandardROIHeads
from torch import Tensor, nn

SIZE = 128  # height and width of the image that shows the strides; at least the coarsest stride


def convert_detector(detector: nn.Module, classes: Sequence[int]) -> GeneralizedRCNN | RetinaNet:
    """Convert a Faster or Mask R-CNN (without its masks) or RetinaNet of torchvision.

    Images are resized by the data's loader, and not as `GeneralizedRCNNTransform` does. RetinaNet's
    anchors on maps whose size is rounded up are at Detectron2's positions.

    Args:
        detector: with its weights. Its modules are used, and it is set to eval mode.
        classes: columns of its classes in the order of Detectron2's; 0 is background.

    Returns:
        The detector in eval mode.
    """
    is_retinanet = isinstance(detector, torchvision.models.detection.RetinaNet)
    build = _build_retinanet if is_retinanet else _build_rcnn
    transform = detector.eval().transform
    with torch.no_grad():
        return build(
            detector,
            list(classes),
            backbone=TorchvisionBackbone(detector.backbone),
            pixel_mean=[255 * x for x in transform.image_mean],
            pixel_std=[255 * x for x in transform.image_std],
            input_format="RGB",
        ).eval()


class TorchvisionBackbone(Backbone):
    """A backbone of torchvision's detectors, with levels that are named p2, p3, ... by stride.

    A second level of the same stride is p5_2, for example.

    Attributes:
        levels: torchvision's name of a level -> its name.
    """

    def __init__(self, body: nn.Module):
        """
        Args:
            body: in eval mode; returns maps by name, finest first.
        """
        super().__init__()
        self.body = body
        self.levels: dict[str, str] = {}
        self._out_feature_strides: dict[str, int] = {}
        self._out_feature_channels: dict[str, int] = {}
        for name, x in body(torch.zeros(1, 3, SIZE, SIZE)).items():
            stride = SIZE // x.shape[-1]
            level = f"p{int(math.log2(stride))}"
            if level in self._out_feature_strides:
                level += "_2"
            self.levels[name] = level
            self._out_feature_strides[level], self._out_feature_channels[level] = stride, x.shape[1]
        self._out_features = list(self._out_feature_strides)

    @property
    def size_divisibility(self) -> int:
        return 32

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return {self.levels[name]: x for name, x in self.body(pixels).items()}


def _build_rcnn(
    detector: nn.Module, classes: list[int], *, backbone: TorchvisionBackbone, **pixels: Any
) -> GeneralizedRCNN:
    heads, pooler = detector.roi_heads, detector.roi_heads.box_roi_pool
    shapes = backbone.output_shape()
    named = [backbone.levels[name] for name in pooler.featmap_names if name in backbone.levels]
    levels = [name for name in named if not name.endswith("_2")]  # torchvision pools no ROI from it
    linear = heads.box_predictor.cls_score
    predictor = FastRCNNOutputLayers(
        ShapeSpec(channels=linear.in_features),
        box2box_transform=Box2BoxTransform(heads.box_coder.weights),
        num_classes=len(classes),
        test_score_thresh=heads.score_thresh,
        test_nms_thresh=heads.nms_thresh,
        test_topk_per_image=heads.detections_per_img,
    )
    _copy_rows(predictor.cls_score, linear, 1, [*classes, 0])
    _copy_rows(predictor.bbox_pred, heads.box_predictor.bbox_pred, 4, classes)
    roi_heads = StandardROIHeads(
        box_in_features=levels,
        box_pooler=ROIPooler(
            pooler.output_size,
            [1 / shapes[level].stride for level in levels],
            pooler.sampling_ratio,
            "ROIAlign",
            canonical_box_size=pooler.canonical_scale,
            canonical_level=pooler.canonical_level,
        ),
        box_head=heads.box_head,
        box_predictor=predictor,
        num_classes=len(classes),
        batch_size_per_image=512,
        positive_fraction=0.25,
        proposal_matcher=Matcher([0.5], [0, 1]),
    )
    rpn = _build_rpn(detector.rpn, backbone)
    return GeneralizedRCNN(backbone=backbone, proposal_generator=rpn, roi_heads=roi_heads, **pixels)


def _build_rpn(rpn: nn.Module, backbone: TorchvisionBackbone) -> RPN:
    generator, order = _anchors(rpn.anchor_generator, backbone)
    channels = rpn.head.cls_logits.in_channels
    head = StandardRPNHead(in_channels=channels, num_anchors=len(order), conv_dims=[-1])
    head.conv = rpn.head.conv
    _copy_rows(head.objectness_logits, rpn.head.cls_logits, 1, order)
    _copy_rows(head.anchor_deltas, rpn.head.bbox_pred, 4, order)
    before, after = rpn.pre_nms_top_n(), rpn.post_nms_top_n()
    return RPN(
        in_features=list(backbone.output_shape()),
        head=head,
        anchor_generator=generator,
        anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=Box2BoxTransform(rpn.box_coder.weights),
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_topk=(before, before),
        post_nms_topk=(after, after),
        nms_thresh=rpn.nms_thresh,
    )


def _build_retinanet(
    detector: nn.Module, classes: list[int], *, backbone: TorchvisionBackbone, **pixels: Any
) -> RetinaNet:
    generator, order = _anchors(detector.anchor_generator, backbone)
    for_classes, for_boxes = detector.head.classification_head, detector.head.regression_head
    channels = for_classes.cls_logits.in_channels
    head = RetinaNetHead(
        input_shape=list(backbone.output_shape().values()),
        num_classes=len(classes),
        num_anchors=len(order),
        conv_dims=[channels],
    )
    head.cls_subnet, head.bbox_subnet = for_classes.conv, for_boxes.conv
    width = for_classes.num_classes
    rows = [anchor * width + column for anchor in order for column in classes]
    _copy_rows(head.cls_score, for_classes.cls_logits, 1, rows)
    _copy_rows(head.bbox_pred, for_boxes.bbox_reg, 4, order)
    return RetinaNet(
        backbone=backbone,
        head=head,
        head_in_features=list(backbone.output_shape()),
        anchor_generator=generator,
        box2box_transform=Box2BoxTransform(detector.box_coder.weights),
        anchor_matcher=Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True),
        num_classes=len(classes),
        test_score_thresh=detector.score_thresh,
        test_topk_candidates=detector.topk_candidates,
        test_nms_thresh=detector.nms_thresh,
        max_detections_per_image=detector.detections_per_img,
        **pixels,
    )


def _anchors(
    generator: nn.Module, backbone: TorchvisionBackbone
) -> tuple[DefaultAnchorGenerator, list[int]]:
    """Return torchvision's anchors, which are rounded, and their indices in Detectron2's order."""
    sizes, ratios = (len(x[0]) for x in (generator.sizes, generator.aspect_ratios))
    order = [ratio * sizes + size for size in range(sizes) for ratio in range(ratios)]
    strides = [shape.stride for shape in backbone.output_shape().values()]
    ours = DefaultAnchorGenerator(
        sizes=generator.sizes, aspect_ratios=generator.aspect_ratios, strides=strides, offset=0.0
    )
    ours.cell_anchors = BufferList([anchors[order] for anchors in generator.cell_anchors])
    return ours, order


def _copy_rows(to: nn.Module, source: nn.Module, width: int, rows: list[int]) -> None:
    """Copy weights and biases of some outputs, each of `width` rows."""
    to.weight.copy_(source.weight.unflatten(0, (-1, width))[rows].flatten(0, 1))
    to.bias.copy_(source.bias.view(-1, width)[rows].flatten())
