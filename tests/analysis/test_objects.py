"""eakd_det.analysis.objects."""

import copy

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.data.detection_utils import read_image
from detectron2.modeling import build_model
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image

from eakd_det.analysis.objects import find_objects, run_detector
from eakd_det.config.defaults import stock_config
from eakd_det.evaluation.detections import detect
from eakd_det.modeling.build import load_teacher
from eakd_det.modeling.recorder import record
from eakd_det.utils.errors import UserError


@pytest.fixture
def objects(scenes):
    return find_objects(DatasetCatalog.get(scenes[1]))


def test_objects_are_the_annotations_but_for_crowds(scenes):
    found = copy.deepcopy(DatasetCatalog.get(scenes[1]))
    annotations = [x for scene in found for x in scene["annotations"]]
    found[0]["annotations"][1]["iscrowd"] = 1
    objects = find_objects(found)
    del annotations[1]
    assert objects.labels.tolist() == [x["category_id"] for x in annotations]
    xywh = BoxMode.convert(objects.boxes, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    assert xywh.tolist() == [x["bbox"] for x in annotations]
    of_second = (objects.places == 1).sum().item()
    assert of_second == len(found[1]["annotations"]) and objects.scenes is found


def test_no_objects_at_all():
    with pytest.raises(UserError, match="no objects in its 1 images"):
        find_objects([{"image_id": 1, "annotations": []}])


def _slow_outputs(cfg, model, scene, size):
    """Logits and features of an image's objects through stock inference with given proposals."""
    image = Image.fromarray(read_image(scene["file_name"], cfg.INPUT.FORMAT))
    pixels = np.asarray(image.resize((size, size), Image.BILINEAR))
    boxes = torch.tensor([x["bbox"] for x in scene["annotations"]]).float()
    boxes[:, 2:] += boxes[:, :2]
    proposals = Instances((size, size))
    proposals.proposal_boxes = Boxes(boxes * size / scene["width"])
    proposals.objectness_logits = torch.zeros(len(boxes))
    x = {"image": torch.from_numpy(pixels.copy()).permute(2, 0, 1), "proposals": proposals}
    generator, model.proposal_generator = model.proposal_generator, None
    with record(predictor=model.roi_heads.box_predictor) as calls:
        model([x])
    model.proposal_generator = generator
    call = calls["predictor"][0]
    return call.output[0], call.args[0]


@pytest.mark.parametrize("size", [96, 144])
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_outputs_are_those_of_stock_inference_on_the_objects_boxes(run_cfg, objects, side, size):
    if side == "teacher":  # reads BGR
        cfg, model = load_teacher(run_cfg)
    else:
        cfg = stock_config(run_cfg)
        model = build_model(cfg)
    cfg.INPUT.MIN_SIZE_TEST = size
    samples = run_detector(cfg, model, objects).samples
    assert len(samples.logits) == len(samples.features) == len(objects)
    expected = [_slow_outputs(cfg, model, scene, size) for scene in objects.scenes]
    for values, of_scenes in zip(
        (samples.logits, samples.features), zip(*expected, strict=True), strict=True
    ):
        assert torch.allclose(values, torch.cat(of_scenes), atol=1e-4)
        assert values.std() > 0
    assert samples.logits.shape[1] == 11 and samples.labels is objects.labels


def test_detections_are_those_of_the_whole_detector(run_cfg, objects):
    cfg, model = load_teacher(run_cfg)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    found = run_detector(cfg, model, objects).detections
    expected = detect(cfg, model, objects.scenes)
    assert len(found) == sum(map(len, expected.values())) > 0
    for image_id, instances in expected.items():
        mine = [x for x in found if x["image_id"] == image_id]
        assert np.allclose([x["score"] for x in mine], instances.scores, atol=1e-6)
        assert [x["category_id"] for x in mine] == instances.pred_classes.tolist()


def test_images_without_objects_are_searched_too(run_cfg, objects):
    cfg, model = load_teacher(run_cfg)
    everything = run_detector(cfg, model, objects)
    scenes = copy.deepcopy(objects.scenes)
    removed = len(scenes[1]["annotations"])
    scenes[1]["annotations"] = []
    fewer = run_detector(cfg, model, find_objects(scenes))
    assert len(fewer.samples.logits) == len(objects) - removed
    assert [x["image_id"] for x in fewer.detections] == [
        x["image_id"] for x in everything.detections
    ]


def test_a_detector_without_rois_is_refused(retina_cfg, objects):
    cfg = stock_config(retina_cfg)
    with pytest.raises(UserError, match="the detector is a RetinaNet"):
        run_detector(cfg, build_model(cfg), objects)
