"""Ground-truth objects as samples: what detectors say of them, and what they find.

N counts objects, K classes, D features.
"""

from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Boxes, BoxMode
from torch import Tensor, nn
from tqdm import tqdm

from eakd_det.data.mapper import CheckingMapper
from eakd_det.modeling.compatibility import box_predictors, describe, roi_remedy
from eakd_det.modeling.recorder import record
from eakd_det.modeling.teacher import DetectorTeacher
from eakd_det.utils.errors import UserError

from .samples import Samples


@dataclass(frozen=True)
class Objects:
    """The objects of a dataset, image after image; crowds are none.

    Attributes:
        scenes: the images, as Detectron2's dataset dicts.
        places: (N,) int64, where in `scenes` the image of each object is.
        boxes: (N, 4) float32, x1, y1, x2, y2 in pixels.
        labels: (N,) int64, from 0 to K - 1.
    """

    scenes: list[dict[str, Any]]
    places: Tensor
    boxes: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Answers:
    """What a detector says of a dataset.

    Attributes:
        samples: of the ROIs of its objects.
        detections: what it finds, in COCO's result format but for the class, which counts from 0.
    """

    samples: Samples
    detections: list[dict[str, Any]]


def find_objects(scenes: list[dict[str, Any]]) -> Objects:
    """The objects of images.

    Raises:
        UserError: there are none.
    """
    places, boxes, labels = [], [], []
    for place, scene in enumerate(scenes):
        for x in scene["annotations"]:
            if not x.get("iscrowd", 0):
                places.append(place)
                boxes.append(BoxMode.convert(x["bbox"], x["bbox_mode"], BoxMode.XYXY_ABS))
                labels.append(x["category_id"])
    if not labels:
        raise UserError(f"The dataset has no objects in its {len(scenes)} images.")
    return Objects(scenes, torch.tensor(places), torch.tensor(boxes).float(), torch.tensor(labels))


def ask(cfg: CfgNode, model: nn.Module, objects: Objects) -> Answers:
    """Run a detector on the images, and its box head on their objects' own boxes.

    Of a cascade it is the first stage, the one that gets boxes from elsewhere.

    Args:
        cfg: the model's own stock config; its INPUT decides how images are read.
        model: a stock R-CNN with its weights. It is frozen and set to eval mode in place.

    Raises:
        UserError: it has no ROIs with a softmax over classes.
    """
    remedy = roi_remedy(model)
    if remedy:
        raise UserError(
            f"The classes of objects' ROIs are asked for, and a {describe(model)} has none with a "
            f"softmax ({remedy} would)."
        )
    detector = DetectorTeacher(model, input_format=cfg.INPUT.FORMAT, fast=False)
    loader = build_detection_test_loader(objects.scenes, mapper=CheckingMapper(cfg, is_train=False))
    counts = torch.bincount(objects.places, minlength=len(objects.scenes)).tolist()
    logits, features, detections = [], [], []
    progress = tqdm(loader, "asking a detector", delay=2, leave=False)
    for (x,), boxes in zip(progress, objects.boxes.split(counts), strict=True):
        with torch.no_grad(), record(backbone=model.backbone) as calls:
            (output,) = model([x])
        found = output["instances"].to("cpu")
        detections += instances_to_coco_json(found, x["image_id"])
        if len(boxes):
            of_image = _ask_about(boxes, x, detector, calls["backbone"][0].output)
            logits.append(of_image[0].float().cpu())
            features.append(of_image[1].float().cpu())
    samples = Samples(objects.labels, torch.cat(logits), torch.cat(features))
    return Answers(samples, detections)


def _ask_about(
    boxes: Tensor, x: dict[str, Any], detector: DetectorTeacher, maps: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Logits, (n, K + 1), and features, (n, D), of the boxes of an image.

    Args:
        boxes: (n, 4) in the pixels of the image as it is stored.
        x: what the detector got of it.
        maps: those of its backbone.
    """
    height, width = x["image"].shape[-2:]
    scaled = Boxes(boxes.to(detector.model.device, copy=True))
    scaled.scale(width / x["width"], height / x["height"])
    with record(predictor=box_predictors(detector.model)[0]) as calls:
        logits = detector.roi_logits(maps, [scaled])
    return logits, calls["predictor"][0].args[0].flatten(1)
