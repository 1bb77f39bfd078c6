"""AP over parts of the objects: COCO's, as it is over those of one size.

N counts objects, D detections, S parts, I images, T IoUs, B draws of images.
"""

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.structures import BoxMode
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from .objects import Objects
from .segments import Z

NUM_IOUS, AT_75 = 10, 5  # COCO's thresholds from 0.5 to 0.95, and where 0.75 is
RECALLS = np.linspace(0, 1, 101)
NUM_RESAMPLES = 400
MOST_VALUES = 4_000_000  # at once in memory
NEAR = 0.1  # IoU with an object from which a detection is about it (TIDE's t_b, Bolya et al. 2020)


@dataclass(frozen=True)
class Matches:
    """The detections of a class, the highest score first; those that do not count are left out.

    Attributes:
        images: (D,) where in the images each lies.
        hits, misses: (T, D) bool; neither where it is ignored at that IoU.
        objects: (I,) number in each image.
    """

    images: np.ndarray
    hits: np.ndarray
    misses: np.ndarray
    objects: np.ndarray


@dataclass(frozen=True)
class PartAP:
    """AP over a part of the objects.

    Attributes:
        values: AP, AP50 and AP75, percent.
        resampled: (NUM_RESAMPLES,) AP of images that are drawn again, as many as there are. The
            draws are the same for every detector, so that differences can be taken.
    """

    values: dict[str, float]
    resampled: np.ndarray


def ap_of_parts(
    objects: Objects, detections: list[dict[str, Any]], parts: list[Tensor]
) -> list[PartAP]:
    """AP over each part of the objects.

    As COCO does for sizes: objects outside the part are neither to be found nor is it wrong to find
    them, and a detection that finds none counts as wrong if it belongs to the part. It belongs to
    that of the object, of any class, that it overlaps most, and to all parts where there is none
    (an IoU below NEAR). One part of all objects so gives COCO's AP.

    Args:
        detections: as of `Answers`.
        parts: S of indices of objects.

    Returns:
        S; means over those classes that the part has objects of.
    """
    if not detections:
        nothing = dict.fromkeys(("AP", "AP50", "AP75"), 0.0)
        return [PartAP(nothing, np.zeros(NUM_RESAMPLES)) for _ in parts]
    truth, about = _ground_truth(objects), _what_they_are_about(objects, detections)
    number = len({scene["image_id"] for scene in objects.scenes})
    draws = np.random.default_rng(0).multinomial(number, np.full(number, 1 / number), NUM_RESAMPLES)
    counts = np.concatenate([np.ones((1, number)), draws])
    results = []
    for part in parts:
        is_inside = torch.zeros(len(objects), dtype=torch.bool)
        is_inside[part] = True
        belongs = torch.where(about < 0, True, is_inside[about])
        found = _average_precision(_match(truth, detections, is_inside, belongs), counts)
        values = {"AP": found[0].mean(), "AP50": found[0, 0], "AP75": found[0, AT_75]}
        values = {name: float(value) for name, value in values.items()}
        results.append(PartAP(values, found[1:].mean(axis=1)))
    return results


def _match(
    truth: COCO, detections: list[dict[str, Any]], is_inside: Tensor, belongs: Tensor
) -> list[Matches]:
    """Each class's hits and misses over the objects that (N,) `is_inside` and (D,) `belongs` tell.

    "Areas" are 1 for what is inside and 0 for what is not, and the range of areas is around 1.
    """
    own = truth.dataset["annotations"][: len(is_inside)]  # crowds are behind
    for annotation, is_counted in zip(own, is_inside.tolist(), strict=True):
        annotation["area"] = float(is_counted)
    with contextlib.redirect_stdout(io.StringIO()):
        found = truth.loadRes([dict(x) for x in detections])  # it writes into them
        own = found.dataset["annotations"]
        for annotation, is_counted in zip(own, belongs.tolist(), strict=True):
            annotation["area"] = float(is_counted)
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0.5, 1.5]], ["all"]
        evaluation.evaluate()
    number = len(evaluation.params.imgIds)
    by_class = [
        evaluation.evalImgs[i : i + number] for i in range(0, len(evaluation.evalImgs), number)
    ]
    return [_join(of_images) for of_images in by_class]


def _join(of_images: list[dict[str, Any] | None]) -> Matches:
    """The matches of a class from those in each image, as pycocotools gives them."""
    objects, images, scores = np.zeros(len(of_images)), [], []
    matched, ignored = [np.zeros((NUM_IOUS, 0))], [np.zeros((NUM_IOUS, 0), bool)]
    for place, x in enumerate(of_images):
        if x is not None:
            objects[place] = (np.asarray(x["gtIgnore"]) == 0).sum()
            images += [place] * len(x["dtScores"])
            scores += x["dtScores"]
            matched.append(x["dtMatches"])
            ignored.append(x["dtIgnore"].astype(bool))
    order = np.argsort(-np.array(scores), kind="mergesort")  # as COCO sorts equal ones
    matched = np.concatenate(matched, axis=1)[:, order] > 0
    ignored = np.concatenate(ignored, axis=1)[:, order]
    kept = ~ignored.all(axis=0)
    hits, misses = (matched & ~ignored)[:, kept], (~matched & ~ignored)[:, kept]
    return Matches(np.array(images, dtype=int)[order][kept], hits, misses, objects)


def _average_precision(matches: list[Matches], counts: np.ndarray) -> np.ndarray:
    """(B, T) AP in percent, the mean over the classes that there are objects of.

    Args:
        counts: (B, I) how often each image is there.
    """
    of_classes = np.stack([_of_class(x, counts) for x in matches])
    has_objects = ~np.isnan(of_classes)
    number = has_objects.sum(axis=0)
    total = np.where(has_objects, of_classes, 0).sum(axis=0)
    return 100 * np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def _of_class(of: Matches, counts: np.ndarray) -> np.ndarray:
    """(B, T) AP of a class as COCO takes it, at 101 recalls; NaN where it has no objects."""
    result = np.zeros((len(counts), NUM_IOUS))
    number = counts @ of.objects
    size = max(1, MOST_VALUES // max(1, of.hits.size))
    for start in range(0, len(counts), size):
        part = slice(start, start + size)
        weight = counts[part, None, of.images]
        hits, misses = (weight * of.hits).cumsum(axis=2), (weight * of.misses).cumsum(axis=2)
        recall = hits / np.maximum(number[part, None, None], 1)
        precision = hits / np.maximum(hits + misses, 1)
        highest = np.maximum.accumulate(precision[..., ::-1], axis=2)[..., ::-1]
        reached = np.searchsorted(RECALLS, recall, side="right")  # how many of the 101
        newly = np.diff(reached, axis=2, prepend=0)
        result[part] = (newly * highest).sum(axis=2) / len(RECALLS)
    return np.where(number[:, None] > 0, result, np.nan)


def interval(value: float, resampled: np.ndarray) -> tuple[float, float]:
    """The ends of a value's 95 % interval, by the deviation of (B,) resampled ones.

    Percentiles of these would not do: AP rises a little where images come twice and others are
    missing, for then fewer different detections compete.
    """
    half = Z * float(np.nanstd(resampled, ddof=1))
    return value - half, value + half


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
