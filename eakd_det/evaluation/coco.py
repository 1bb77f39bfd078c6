"""COCO evaluation: a faster engine where it is installed, and causes of a result without boxes."""

import contextlib
import importlib.util
import io
import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, count
from typing import Any

import torch
from detectron2.data import Metadata, MetadataCatalog
from detectron2.engine.hooks import BestCheckpointer
from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    coco_evaluation,
    inference_context,
)
from detectron2.modeling import GeneralizedRCNN, RetinaNet
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, Res5ROIHeads, StandardROIHeads
from detectron2.utils import comm
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from eakd_det.checkpoint.checkpointer import write_atomically
from eakd_det.checkpoint.safe_pickle import load_pth
from eakd_det.data.ids import number_ids, original_ids
from eakd_det.modeling.compatibility import box_predictors
from eakd_det.utils.errors import UserError

HAS_FASTER_COCO_EVAL = importlib.util.find_spec("faster_coco_eval") is not None


class Evaluator(COCOEvaluator):
    """COCOEvaluator on faster-coco-eval where it is installed, else on what Detectron2 has.

    It is right for any ids of images, categories and annotations, which the stock one is not (see
    `number_ids`); coco_instances_results.json has those of the user's file.
    """

    def __init__(self, dataset_name: str, *args: Any, **kwargs: Any):
        """
        Args: those of COCOEvaluator.

        Raises:
            UserError: the dataset's JSON lacks a key.
        """
        try:
            super().__init__(dataset_name, *args, **kwargs)
        except KeyError as error:
            json_file = MetadataCatalog.get(dataset_name).json_file
            raise UserError(
                f"DATASETS.TEST: {dataset_name} cannot be evaluated, since a part of {json_file} "
                f"lacks the key {error}; --val-json in place of it checks and completes such files."
            ) from error
        truth, self._metadata_of_user = self._coco_api.dataset, self._metadata
        self._numbers = number_ids(truth)
        self._originals = original_ids(truth)
        with contextlib.redirect_stdout(io.StringIO()):
            self._coco_api.createIndex()

    def _eval_predictions(self, predictions, img_ids=None) -> None:
        self._use_numbers(predictions)
        with _engine(self):
            super()._eval_predictions(predictions, img_ids)
        if self._output_dir and any(self._originals.values()):
            path = os.path.join(self._output_dir, "coco_instances_results.json")
            _restore_ids(path, self._originals)

    def _use_numbers(self, predictions: list[dict[str, Any]]) -> None:
        """Let predictions, and the metadata that turn classes into ids, have the new ids."""
        images, categories = self._numbers["image_id"], self._numbers["category_id"]
        if images:
            for result in chain.from_iterable(x["instances"] for x in predictions):
                result["image_id"] = images[result["image_id"]]
        to_index = self._metadata_of_user.get("thing_dataset_id_to_contiguous_id")
        if categories and to_index:
            to_index = {categories[i]: index for i, index in to_index.items()}
            metadata = self._metadata_of_user.as_dict()
            self._metadata = Metadata(**{**metadata, "thing_dataset_id_to_contiguous_id": to_index})


def _restore_ids(path: str, originals: dict[str, dict[int, Any]]) -> None:
    with open(path) as f:
        results = json.load(f)
    for result in results:
        for field, ids in originals.items():
            result[field] = ids.get(result[field], result[field])
    with write_atomically(path) as f:
        json.dump(results, f)


class CountedEvaluators(DatasetEvaluators):
    """DatasetEvaluators that also count the detections that they are given.

    Attributes:
        num_detections: of the last evaluation, of all processes in the main one; None where the
            model gives no "instances".
    """

    def __init__(self, evaluators: DatasetEvaluator | list[DatasetEvaluator] | None):
        """
        Args:
            evaluators: what `inference_on_dataset` takes.
        """
        several = [evaluators] if isinstance(evaluators, DatasetEvaluator) else evaluators or []
        super().__init__(several)

    def reset(self) -> None:
        super().reset()
        self.num_detections = None

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        super().process(inputs, outputs)
        self._count(len(x["instances"]) for x in outputs if "instances" in x)

    def evaluate(self) -> dict[str, Any]:
        results = super().evaluate()
        gathered = comm.gather(self.num_detections)
        self.num_detections = None
        self._count(number for number in gathered if number is not None)
        return results

    def _count(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.num_detections = (self.num_detections or 0) + number


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
                "model_best.pth. (In a Python config the key is train.best_metric.)"
            )
            return
        value, iteration = self.trainer.storage.latest()[self._val_metric]
        is_better = self.best_metric is None or value > self.best_metric
        if is_better and self._update_best(value, iteration):  # a NaN is no update
            self._checkpointer.save(self._file_prefix, iteration=iteration, metric=value)


def warn_of_no_detections(name: str, model: nn.Module, inputs: list[dict[str, Any]]) -> None:
    """Warn that nothing was found in the dataset `name`, with `explain_no_detections`."""
    cause = explain_no_detections(model, inputs)
    logging.getLogger(__name__).warning(f"Nothing was found in {name}: {cause}.")


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
        f"MODEL.{key}.SCORE_THRESH_TEST {threshold}: the model has hardly learnt yet, or it reads "
        "other images than it was trained on (INPUT.FORMAT, MODEL.PIXEL_MEAN)"
    )


def _threshold_owners(model: nn.Module) -> list[nn.Module]:
    """The modules that leave out detections of low score; none of an unknown architecture."""
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
