"""AP over parts of the objects: COCO's, as it is over those of one size.

N counts objects, D detections, S parts.
"""

import contextlib
import io
from typing import Any

import numpy as np
import torch
from detectron2.structures import BoxMode
from pycocotools.coco import COCO
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from ..evaluation import coco_engine
from .objects import Objects

NEAR = 0.1  # IoU with an object from which a detection is about it (TIDE's t_b, Bolya et al. 2020)


def ap_of_parts(
    objects: Objects, detections: list[dict[str, Any]], parts: list[Tensor]
) -> list[dict[str, float]]:
    """AP, AP50 and AP75, percent, over each part of the objects.

    As COCO does for sizes: objects outside the part are neither to be found nor is it wrong to find
    them, and a detection that finds none counts as wrong if it belongs to the part. It belongs to
    that of the object, of any class, that it overlaps most, and to all parts where there is none
    (an IoU below NEAR). One part of all objects so gives COCO's AP.

    Args:
        detections: as of `Answers`.
        parts: S of indices of objects.

    Returns:
        S dicts; means over those classes that the part has objects of.
    """
    truth, about = _ground_truth(objects), _what_they_are_about(objects, detections)
    results = []
    for part in parts:
        is_inside = torch.zeros(len(objects), dtype=torch.bool)
        is_inside[part] = True
        belongs = torch.where(about < 0, True, is_inside[about])
        results.append(_average_precision(truth, detections, is_inside, belongs))
    return results


def _average_precision(
    truth: COCO, detections: list[dict[str, Any]], is_inside: Tensor, belongs: Tensor
) -> dict[str, float]:
    """AP over the objects with (N,) `is_inside`, with the detections that (D,) `belongs` tells.

    "Areas" are 1 for what is inside and 0 for what is not, and the range of areas is around 1.
    """
    if not detections:
        return dict.fromkeys(("AP", "AP50", "AP75"), 0.0)
    own = truth.dataset["annotations"][: len(is_inside)]  # crowds are behind
    for annotation, is_counted in zip(own, is_inside.tolist(), strict=True):
        annotation["area"] = float(is_counted)
    with contextlib.redirect_stdout(io.StringIO()):
        found = truth.loadRes([dict(x) for x in detections])  # it writes into them
        own = found.dataset["annotations"]
        for annotation, is_counted in zip(own, belongs.tolist(), strict=True):
            annotation["area"] = float(is_counted)
        evaluation = coco_engine()(truth, found, "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0.5, 1.5]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (thresholds, recalls, K)
    precision = np.where(precision < 0, np.nan, precision)  # -1: no objects of the class
    thresholds = evaluation.params.iouThrs.round(2).tolist()
    chosen = {"AP": slice(None), "AP50": thresholds.index(0.5), "AP75": thresholds.index(0.75)}
    return {name: 100 * float(np.nanmean(precision[index])) for name, index in chosen.items()}


def _ground_truth(objects: Objects) -> COCO:
    """The objects, whose ids count from 1, and the crowds of their images."""
    boxes = box_convert(objects.boxes, "xyxy", "xywh").tolist()
    ids = [scene["image_id"] for scene in objects.scenes]
    annotations = [
        {"image_id": ids[place], "category_id": label, "bbox": box, "area": 1.0, "iscrowd": 0}
        for place, label, box in zip(
            objects.places.tolist(), objects.labels.tolist(), boxes, strict=True
        )
    ]
    annotations += _crowds(objects)
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    truth = COCO()
    classes = sorted({annotation["category_id"] for annotation in annotations})
    truth.dataset = {
        "images": [{"id": image_id} for image_id in ids],
        "annotations": annotations,
        "categories": [{"id": label} for label in classes],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def _crowds(objects: Objects) -> list[dict[str, Any]]:
    return [
        {
            "image_id": scene["image_id"],
            "category_id": x["category_id"],
            "bbox": BoxMode.convert(x["bbox"], x["bbox_mode"], BoxMode.XYWH_ABS),
            "area": 1.0,
            "iscrowd": 1,
        }
        for scene in objects.scenes
        for x in scene["annotations"]
        if x.get("iscrowd", 0)
    ]


def _what_they_are_about(objects: Objects, detections: list[dict[str, Any]]) -> Tensor:
    """(D,) the object that each detection overlaps most, -1 for none."""
    places = {scene["image_id"]: place for place, scene in enumerate(objects.scenes)}
    its_place = torch.tensor([places[x["image_id"]] for x in detections], dtype=torch.long)
    boxes = torch.tensor([x["bbox"] for x in detections]).view(-1, 4)
    boxes = box_convert(boxes, "xywh", "xyxy")
    about = torch.full((len(detections),), -1)
    for place in its_place.unique():
        mine = (its_place == place).nonzero()[:, 0]
        theirs = (objects.places == place).nonzero()[:, 0]
        if len(theirs):
            overlap, best = box_iou(boxes[mine], objects.boxes[theirs]).max(dim=1)
            about[mine] = torch.where(overlap < NEAR, -1, theirs[best])
    return about
