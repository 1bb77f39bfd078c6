"""COCO evaluation: a faster engine where it is installed, and causes of a result without boxes."""

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count
from typing import Any

import torch
from detectron2.engine.hooks import BestCheckpointer
from detectron2.evaluation import COCOEvaluator, coco_evaluation, inference_context
from detectron2.modeling import RetinaNet
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .compatibility import box_predictors
from .safe_pickle import load_pth

HAS_FASTER_COCO_EVAL = importlib.util.find_spec("faster_coco_eval") is not None


class Evaluator(COCOEvaluator):
    """COCOEvaluator on faster-coco-eval where it is installed, else on what Detectron2 has.

    Attributes:
        num_detections: of all images of the last evaluation, in the main process.
    """

    def reset(self) -> None:
        super().reset()
        self.num_detections = 0

    def _eval_predictions(self, predictions, img_ids=None) -> None:
        self.num_detections = sum(len(x["instances"]) for x in predictions)
        with _engine(self):
            super()._eval_predictions(predictions, img_ids)


def coco_engine() -> type:
    """COCOeval of faster-coco-eval where it is installed, else pycocotools' own."""
    if not HAS_FASTER_COCO_EVAL:
        return COCOeval
    from faster_coco_eval.core.faster_eval_api import COCOeval_faster

    return COCOeval_faster


@contextmanager
def _engine(evaluator: COCOEvaluator) -> Iterator[None]:
    if not HAS_FASTER_COCO_EVAL:
        yield
        return
    # Detectron2 takes its compiled engine from this name, which a wheel without it lacks.
    evaluator._use_fast_impl = True
    stock, coco_evaluation.COCOeval_opt = coco_evaluation.COCOeval_opt, coco_engine()
    try:
        yield
    finally:
        coco_evaluation.COCOeval_opt = stock


class BestCheckpoint(BestCheckpointer):
    """BestCheckpointer that writes the value into the file, and knows it in a resumed run."""

    def before_train(self) -> None:
        path = os.path.join(self._checkpointer.save_dir, f"{self._file_prefix}.pth")
        if not os.path.isfile(path):
            return
        if self.trainer.start_iter == 0:  # of another run in the same folder
            os.replace(path, _unused(path))
        else:
            saved = load_pth(path)
            self.best_metric, self.best_iter = saved["metric"], saved["iteration"]

    def _best_checking(self) -> None:
        if self._val_metric not in self.trainer.storage.latest():
            logging.getLogger(__name__).warning(
                f"TEST.BEST_METRIC: the evaluation gives no {self._val_metric}; there will be no "
                "model_best.pth."
            )
            return
        value, iteration = self.trainer.storage.latest()[self._val_metric]
        is_better = self.best_metric is None or value > self.best_metric
        if is_better and self._update_best(value, iteration):  # a NaN is no update
            self._checkpointer.save(self._file_prefix, iteration=iteration, metric=value)


def _unused(path: str) -> str:
    """The path with the first number before its ending that no file has."""
    stem, ending = os.path.splitext(path)
    candidates = (f"{stem}_earlier{number}{ending}" for number in count(1))
    return next(candidate for candidate in candidates if not os.path.exists(candidate))


def explain_no_detections(model: nn.Module, inputs: list[dict[str, Any]]) -> str:
    """Why a model may have found nothing in a whole dataset, in a sentence.

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
    owners = [model] if isinstance(model, RetinaNet) else box_predictors(model)
    key = "RETINANET" if isinstance(model, RetinaNet) else "ROI_HEADS"
    threshold = owners[0].test_score_thresh
    with inference_context(model), _thresholds(owners, -1.0):
        found = [output["instances"] for output in model(inputs)]
    scores = torch.cat([instances.scores for instances in found])
    if not len(scores):
        return "its scores or boxes are not finite, or its RPN proposes nothing"
    return (
        f"the highest score in the first batch is {scores.max().item():.3g}, below "
        f"MODEL.{key}.SCORE_THRESH_TEST {threshold}: the model has hardly learnt yet, or it reads "
        "other images than it was trained on (INPUT.FORMAT, MODEL.PIXEL_MEAN)"
    )


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


def compare_results(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Log and return a table of the AP columns of several detectors, task by task.

    Args:
        results: title -> task ("bbox", "segm") -> metric -> value, or with another level for
            several datasets, as `evaluate` gives them.
    """
    results = {title: _by_task(of) for title, of in results.items()}
    tables = []
    for task in dict.fromkeys(chain.from_iterable(results.values())):
        having = {title: of[task] for title, of in results.items() if task in of}
        columns = [m for m in next(iter(having.values())) if not m.startswith("AP-")]
        rows = [[title, *(metrics[m] for m in columns)] for title, metrics in having.items()]
        tables.append(tabulate(rows, headers=[task, *columns], floatfmt=".1f"))
    text = "\n\n".join(tables)
    logging.getLogger(__name__).info("Evaluation side by side:\n%s", text)
    return text


def _by_task(results: dict[str, Any], prefix: str = "") -> dict[str, dict[str, float]]:
    """The innermost dicts, of metrics, by the path that leads to each."""
    found = {}
    for name, of in results.items():
        is_task = not any(isinstance(value, dict) for value in of.values())
        found.update({prefix + name: of} if is_task else _by_task(of, f"{prefix}{name}/"))
    return found
