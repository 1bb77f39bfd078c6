"""Compared with the forward passes of torchvision's own detectors."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from eakd_det.modeling.teacher import DetectorTeacher
from eakd_det.modeling.teacher.torchvision_detector import convert_detector

CLASSES = [1, 3, 4]  # the second of four does not exist
CHANNELS = 16


def _backbone(levels, **options):
    layers = {}
    channels, stride = 3, 4
    for name in ("a", "b", "c", "d"):
        conv = nn.Conv2d(channels, 8, 3, stride, padding=1)
        layers[name] = nn.Sequential(conv, nn.BatchNorm2d(8), nn.ReLU())
        channels, stride = 8, 2
    named = {layer: str(i) for i, layer in enumerate(levels)}
    body = nn.Sequential(OrderedDict(layers))
    return BackboneWithFPN(body, named, [8] * len(levels), CHANNELS, **options)


SIZES = {"min_size": 96, "max_size": 128}  # images of the batch keep their sizes


@pytest.fixture
def rcnn():
    torch.manual_seed(0)
    anchors = AnchorGenerator(tuple((16, 32) for _ in range(5)), ((0.5, 1.0, 2.0),) * 5)
    return FasterRCNN(
        _backbone("abcd"),
        rpn_anchor_generator=anchors,
        box_head=TwoMLPHead(CHANNELS * 49, 32),
        box_predictor=FastRCNNPredictor(32, 5),
        rpn_post_nms_top_n_test=20,
        **SIZES,
    ).eval()


@pytest.fixture
def retinanet():
    torch.manual_seed(0)
    sizes = tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (8, 16, 32, 64, 96))
    model = RetinaNet(
        _backbone("bcd", extra_blocks=LastLevelP6P7(CHANNELS, CHANNELS)),
        num_classes=5,
        anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5),
        **SIZES,
    ).eval()
    layer = model.head.classification_head.cls_logits
    with torch.no_grad():  # scores that differ, without detections of background
        for conv in model.head.modules():
            if isinstance(conv, nn.Conv2d):
                conv.weight.mul_(8)
        layer.bias.normal_()
        layer.bias.view(9, 5)[:, 0] = -50
    return model


def _teacher(detector):
    return DetectorTeacher(convert_detector(detector, CLASSES), input_format="RGB", fast=False)


def _input(detector, batch):
    images = [detector.transform.normalize(x["image"].float() / 255) for x in batch]
    return detector.transform.batch_images(images, 32)


@torch.no_grad()
def test_an_r_cnn_has_torchvision_s_maps_and_box_head(rcnn, batch):
    teacher = _teacher(rcnn)
    features = teacher.features(batch, "RGB")
    theirs = rcnn.backbone(_input(rcnn, batch))
    assert list(features) == ["p2", "p3", "p4", "p5", "p6"]
    for ours, map_of_theirs in zip(features.values(), theirs.values(), strict=True):
        assert_close(ours, map_of_theirs)
    boxes = [x["instances"].gt_boxes for x in batch]
    logits, deltas = teacher.roi_outputs(features, boxes)
    shapes = [tuple(x["image"].shape[-2:]) for x in batch]
    pooled = rcnn.roi_heads.box_roi_pool(theirs, [b.tensor for b in boxes], shapes)
    scores, regression = rcnn.roi_heads.box_predictor(rcnn.roi_heads.box_head(pooled))
    assert_close(logits, scores[:, [*CLASSES, 0]])
    assert_close(deltas, regression.view(4, 5, 4)[:, CLASSES].flatten(1))
    all_of_them = DetectorTeacher(convert_detector(rcnn, [1, 2, 3, 4]), input_format="RGB")
    logits, _ = all_of_them.roi_outputs(features, boxes)
    assert_close(logits.softmax(1)[:, :4], scores.softmax(1)[:, 1:])
    assert teacher.model.roi_heads.box_predictor.box2box_transform.weights == (10, 10, 5, 5)


@torch.no_grad()
def test_anchors_and_logits_of_a_retinanet(retinanet, batch):
    """In Detectron2's order: sizes, then ratios, at every position."""
    teacher = _teacher(retinanet)
    features = teacher.features(batch, "RGB")
    sizes = [x.shape[-2:] for x in features.values()]
    logits = teacher.anchor_logits(features, sizes)
    maps = list(retinanet.backbone(_input(retinanet, batch)).values())
    theirs = retinanet.head(maps)["cls_logits"]
    ours = [x.tensor for x in teacher.model.anchor_generator(list(features.values()))]
    start = 0
    for level, (height, width) in enumerate(sizes):
        cells = retinanet.anchor_generator.cell_anchors[level]
        here = slice(start, start := start + 9 * height * width)
        of_level = theirs[:, here].view(2, -1, 9, 5)
        order = [r * 3 + s for s in range(3) for r in range(3)]
        assert_close(logits[:, here].view(2, -1, 9, 3), of_level[:, :, order][..., CLASSES])
        assert_close(ours[level][:9], cells[order])
    assert start == logits.shape[1]


@pytest.mark.parametrize("name", ["rcnn", "retinanet"])
@torch.no_grad()
def test_detections_are_torchvision_s(name, batch, request):
    """One image without padding, where the anchors are at the same positions."""
    detector = request.getfixturevalue(name)
    image = batch[0]["image"].repeat(1, 2, 1)[:, :128]
    detector.transform.min_size = (128,)
    [theirs] = detector([image / 255])
    model = convert_detector(detector, [1, 2, 3, 4])
    [ours] = model([{"image": image}])
    ours, theirs = ours["instances"][:50], {key: x[:50] for key, x in theirs.items()}
    assert len(ours) == len(theirs["scores"]) > 10
    assert_close(ours.scores, theirs["scores"], atol=1e-4, rtol=1e-4)
    assert_close(ours.pred_boxes.tensor, theirs["boxes"], atol=1e-2, rtol=1e-4)
    assert torch.equal(ours.pred_classes + 1, theirs["labels"])


def test_levels_of_the_same_stride(batch):
    """As MobileNetV3 has them; ROIs are pooled from the first."""
    torch.manual_seed(0)
    backbone = _backbone("abcd")
    backbone.body.d[0].stride = (1, 1)
    model = convert_detector(
        FasterRCNN(
            backbone, box_head=TwoMLPHead(16 * 49, 8), box_predictor=FastRCNNPredictor(8, 5)
        ),
        CLASSES,
    )
    shapes = model.backbone.output_shape()
    assert [(n, s.stride) for n, s in shapes.items()][2:4] == [("p4", 16), ("p4_2", 16)]
    assert model.roi_heads.box_in_features == ["p2", "p3", "p4"]
