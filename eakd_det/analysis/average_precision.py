"""COCO's AP over parts of the objects, computed as COCO computes it over objects of one size.

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

NUM_IOUS, AT_75 = 10, 5  # number of COCO's thresholds from 0.5 to 0.95, and index of 0.75
RECALLS = np.linspace(0, 1, 101)
NUM_RESAMPLES = 400
MOST_VALUES = 4_000_000  # in memory at a time
NEAR = 0.1  # least IoU of a detection with its object (t_b of TIDE, Bolya et al. 2020)


@dataclass(frozen=True)
class Matches:
    """Matched detections of a class, by falling score; detections that do not count are left out.

    Attributes:
        images: (D,) index of each detection's image.
        scores: (D,) scores.
        hits, misses: (T, D) bool; both are False where a detection is ignored at that IoU.
        objects: (I,) number of objects in each image.
    """

    images: np.ndarray
    scores: np.ndarray
    hits: np.ndarray
    misses: np.ndarray
    objects: np.ndarray


@dataclass(frozen=True)
class PartAP:
    """AP over a part of the objects.

    Attributes:
        values: AP, AP50 and AP75, percent.
        resampled: (NUM_RESAMPLES,) AP of bootstrap samples of the images. The draws are the same
            for every detector, so that differences can be taken.
    """

    values: dict[str, float]
    resampled: np.ndarray


def ap_of_parts(
    objects: Objects, detections: list[dict[str, Any]], parts: list[Tensor]
) -> list[PartAP]:
    """Compute AP over each part of the objects.

    As for COCO's sizes, objects outside a part are ignored, and so are detections that match them.
    An unmatched detection is a false positive of the part of the object, of any class, that it
    overlaps most, and of all parts if there is no such object (all IoUs are below NEAR). A single
    part of all objects therefore gives COCO's AP.

    Args:
        objects: all N objects.
        detections: D detections, as in `DetectorOutputs`.
        parts: S tensors of indices of objects.

    Returns:
        S values, each a mean over the classes with objects in the part.
    """
    if not detections:
        nothing = dict.fromkeys(("AP", "AP50", "AP75"), 0.0)
        return [PartAP(nothing, np.zeros(NUM_RESAMPLES)) for _ in parts]
    truth, nearest = _ground_truth(objects), _nearest_objects(objects, detections)
    number = len({scene["image_id"] for scene in objects.scenes})
    draws = np.random.default_rng(0).multinomial(number, np.full(number, 1 / number), NUM_RESAMPLES)
    counts = np.concatenate([np.ones((1, number)), draws])
    results = []
    for part in parts:
        is_inside = torch.zeros(len(objects), dtype=torch.bool)
        is_inside[part] = True
        belongs = torch.where(nearest < 0, True, is_inside[nearest])
        found = _average_precision(_match(truth, detections, is_inside, belongs), counts)
        values = {"AP": found[0].mean(), "AP50": found[0, 0], "AP75": found[0, AT_75]}
        values = {name: float(value) for name, value in values.items()}
        results.append(PartAP(values, found[1:].mean(axis=1)))
    return results


def match_detections(objects: Objects, detections: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """Match detections to all objects at IoU 0.5, as COCO does.

    Detections on crowds, and of classes without objects, are left out.

    Returns:
        Scores, float64, and whether they match an object of their class, bool; (D,) each.
    """
    if not detections:
        return torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.bool)
    every = (torch.ones(len(x), dtype=torch.bool) for x in (objects, detections))
    matches = _match(_ground_truth(objects), detections, *every)
    columns = [np.stack([x.scores, x.hits[0], x.misses[0]]) for x in matches]
    scores, hits, misses = np.concatenate(columns, axis=1)
    kept = (hits > 0) | (misses > 0)
    return torch.from_numpy(scores[kept]), torch.from_numpy(hits[kept] > 0)


def _match(
    truth: COCO, detections: list[dict[str, Any]], is_inside: Tensor, belongs: Tensor
) -> list[Matches]:
    """Match each class's detections to the objects of a part.

    COCO's area range selects the part: "areas" are 1 inside the part and 0 outside.

    Args:
        is_inside: (N,) bool, objects in the part.
        belongs: (D,) bool, detections that count as false positives if they match no object.
    """
    own = truth.dataset["annotations"][: len(is_inside)]  # crowds come after them
    for annotation, is_counted in zip(own, is_inside.tolist(), strict=True):
        annotation["area"] = float(is_counted)
    with contextlib.redirect_stdout(io.StringIO()):
        found = truth.loadRes([dict(x) for x in detections])  # loadRes changes the dicts
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
    """Join the matches of a class in each image, as pycocotools returns them."""
    objects, images, scores = np.zeros(len(of_images)), [], []
    matched, ignored = [np.zeros((NUM_IOUS, 0))], [np.zeros((NUM_IOUS, 0), bool)]
    for place, x in enumerate(of_images):
        if x is not None:
            objects[place] = (np.asarray(x["gtIgnore"]) == 0).sum()
            images += [place] * len(x["dtScores"])
            scores += x["dtScores"]
            matched.append(x["dtMatches"])
            ignored.append(x["dtIgnore"].astype(bool))
    order = np.argsort(-np.array(scores), kind="mergesort")  # keeps ties in COCO's order
    matched = np.concatenate(matched, axis=1)[:, order] > 0
    ignored = np.concatenate(ignored, axis=1)[:, order]
    kept = ~ignored.all(axis=0)
    hits, misses = (matched & ~ignored)[:, kept], (~matched & ~ignored)[:, kept]
    images, scores = np.array(images, dtype=int)[order][kept], np.array(scores)[order][kept]
    return Matches(images, scores, hits, misses, objects)


def _average_precision(matches: list[Matches], counts: np.ndarray) -> np.ndarray:
    """Mean AP over the classes that have objects, (B, T), in percent.

    Args:
        counts: (B, I) number of times that each image is drawn.
    """
    of_classes = np.stack([_class_ap(x, counts) for x in matches])
    has_objects = ~np.isnan(of_classes)
    number = has_objects.sum(axis=0)
    total = np.where(has_objects, of_classes, 0).sum(axis=0)
    return 100 * np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def _class_ap(matches: Matches, counts: np.ndarray) -> np.ndarray:
    """COCO's AP of a class at 101 recalls, (B, T); NaN without objects."""
    result = np.zeros((len(counts), NUM_IOUS))
    number = counts @ matches.objects
    size = max(1, MOST_VALUES // max(1, matches.hits.size))
    for start in range(0, len(counts), size):
        part = slice(start, start + size)
        weight = counts[part, None, matches.images]
        hits = (weight * matches.hits).cumsum(axis=2)
        misses = (weight * matches.misses).cumsum(axis=2)
        recall = hits / np.maximum(number[part, None, None], 1)
        precision = hits / np.maximum(hits + misses, 1)
        highest = np.maximum.accumulate(precision[..., ::-1], axis=2)[..., ::-1]
        reached = np.searchsorted(RECALLS, recall, side="right")  # number of the 101 recalls
        newly = np.diff(reached, axis=2, prepend=0)
        result[part] = (newly * highest).sum(axis=2) / len(RECALLS)
    return np.where(number[:, None] > 0, result, np.nan)


def interval(value: float, resampled: np.ndarray) -> tuple[float, float]:
    """Return the ends of a value's 95 % interval from the deviation of (B,) resampled values.

    Percentiles would be biased: AP is a little higher on images that are drawn twice while others
    are missing, since fewer different detections compete.
    """
    half = Z * float(np.nanstd(resampled, ddof=1))
    return value - half, value + half


def _ground_truth(objects: Objects) -> COCO:
    """Build the COCO ground truth of the objects, with ids from 1, and of their images' crowds."""
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


def _nearest_objects(objects: Objects, detections: list[dict[str, Any]]) -> Tensor:
    """Index of the object that each detection overlaps most, (D,); -1 for none."""
    places = {scene["image_id"]: place for place, scene in enumerate(objects.scenes)}
    images = torch.tensor([places[x["image_id"]] for x in detections], dtype=torch.long)
    boxes = torch.tensor([x["bbox"] for x in detections]).view(-1, 4)
    boxes = box_convert(boxes, "xywh", "xyxy")
    nearest = torch.full((len(detections),), -1)
    for image in images.unique():
        mine = (images == image).nonzero()[:, 0]
        theirs = (objects.places == image).nonzero()[:, 0]
        if len(theirs):
            overlap, best = box_iou(boxes[mine], objects.boxes[theirs]).max(dim=1)
            nearest[mine] = torch.where(overlap < NEAR, -1, theirs[best])
    return nearest
