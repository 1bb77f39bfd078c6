"""Detections on a dataset, from a model or from the files of an evaluation."""

import json
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata, build_detection_test_loader
from detectron2.structures import Boxes, BoxMode, Instances
from torch import nn
from tqdm import tqdm

from eakd_det.data.mapper import CheckingMapper


def read_detections(results_json: str, metadata: Metadata) -> dict[int, Instances]:
    """Load the detections of inference/coco_instances_results.json, as Evaluator writes it.

    Returns:
        Image id of the registered dataset -> detections.
    """
    with open(results_json) as f:
        results = json.load(f)
    originals = metadata.get("original_ids", {})
    images, categories = (
        {original: new for new, original in originals.get(field, {}).items()}
        for field in ("image_id", "category_id")
    )
    by_image = defaultdict(list)
    for result in results:
        by_image[images.get(result["image_id"], result["image_id"])].append(result)
    to_index = {
        original: metadata.thing_dataset_id_to_contiguous_id[new]
        for original, new in categories.items()
    } or metadata.thing_dataset_id_to_contiguous_id
    detections = {}
    for image_id, found in by_image.items():
        boxes = np.array([result["bbox"] for result in found])
        instances = Instances((0, 0))  # the image size is not needed for drawing
        instances.pred_boxes = Boxes(BoxMode.convert(boxes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS))
        instances.scores = np.array([result["score"] for result in found])
        instances.pred_classes = np.array([to_index[result["category_id"]] for result in found])
        detections[image_id] = instances
    return detections


@torch.no_grad()
def detect(cfg: CfgNode, model: nn.Module, scenes: list[dict[str, Any]]) -> dict[int, Instances]:
    """Run a stock model on scenes.

    Args:
        cfg: config of the model, whose INPUT is used to read the images.
        model: the model with its weights.
        scenes: Detectron2 dataset dicts.

    Returns:
        Image id -> detections.
    """
    model.eval()
    loader = build_detection_test_loader(scenes, mapper=CheckingMapper(cfg, is_train=False))
    detections = {}
    for inputs in tqdm(loader, "detecting", delay=2, leave=False):
        for x, output in zip(inputs, model(inputs), strict=True):
            found = output["instances"].to("cpu")
            found.scores, found.pred_classes = found.scores.numpy(), found.pred_classes.numpy()
            detections[x["image_id"]] = found
    return detections
