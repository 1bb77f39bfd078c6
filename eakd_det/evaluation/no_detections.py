"""Causes of an evaluation without detections."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from detectron2.evaluation import inference_context
from detectron2.modeling import GeneralizedRCNN, RetinaNet
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, Res5ROIHeads, StandardROIHeads
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from eakd_det.modeling.compatibility import box_predictors


def warn_of_no_detections(name: str, model: nn.Module, inputs: list[dict[str, Any]]) -> None:
    """Log a warning that there are no detections in the dataset `name`, with the probable cause."""
    cause = explain_no_detections(model, inputs)
    logging.getLogger(__name__).warning(f"Nothing was found in {name}: {cause}.")


def explain_no_detections(model: nn.Module, inputs: list[dict[str, Any]]) -> str:
    """Return the probable cause of an evaluation without any detection, as a clause.

    Args:
        model: the detector.
        inputs: a batch of the dataset.
    """
    if isinstance(model, DistributedDataParallel):
        model = model.module
    tensors = chain(model.named_parameters(), model.named_buffers())
    broken = [name for name, tensor in tensors if not torch.isfinite(tensor).all()]
    if broken:
        return f"{len(broken)} of its weights are not finite, {broken[0]} among them"
    owners = _threshold_owners(model)
    if not owners:
        return f"the score threshold of a {type(model).__name__} is not known here"
    key = "RETINANET" if isinstance(model, RetinaNet) else "ROI_HEADS"
    threshold = owners[0].test_score_thresh
    with inference_context(model), _thresholds(owners, -1.0):
        found = [output["instances"] for output in model(inputs)]
    scores = torch.cat([instances.scores for instances in found])
    if not len(scores):
        return "its scores or boxes are not finite, or its RPN proposes nothing"
    return (
        f"the highest score in the first batch is {scores.max().item():.3g}, below "
        f"MODEL.{key}.SCORE_THRESH_TEST {threshold}: the model is hardly trained yet, or its input "
        "differs from that of its training (INPUT.FORMAT, MODEL.PIXEL_MEAN)"
    )


def _threshold_owners(model: nn.Module) -> list[nn.Module]:
    """Return the modules with the score threshold; none for an unknown architecture."""
    if isinstance(model, RetinaNet):
        return [model]
    is_known = isinstance(model, GeneralizedRCNN) and isinstance(
        model.roi_heads, (StandardROIHeads, Res5ROIHeads)
    )
    predictors = box_predictors(model) if is_known else []
    return [p for p in predictors if isinstance(p, FastRCNNOutputLayers)]


@contextmanager
def _thresholds(owners: list[nn.Module], value: float) -> Iterator[None]:
    before = [owner.test_score_thresh for owner in owners]
    for owner in owners:
        owner.test_score_thresh = value
    try:
        with torch.no_grad():
            yield
    finally:
        for owner, threshold in zip(owners, before, strict=True):
            owner.test_score_thresh = threshold
