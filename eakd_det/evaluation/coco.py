"""COCO evaluation for any ids, with faster-coco-eval if it is installed, and a detection count."""

import contextlib
import importlib.util
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

from detectron2.data import Metadata, MetadataCatalog
from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    coco_evaluation,
)
from detectron2.utils import comm
from pycocotools.cocoeval import COCOeval

from eakd_det.data.ids import number_ids, original_ids
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_json

HAS_FASTER_COCO_EVAL = importlib.util.find_spec("faster_coco_eval") is not None


class Evaluator(COCOEvaluator):
    """COCOEvaluator that uses faster-coco-eval if it is installed, and accepts any ids.

    The stock one gives wrong results for some ids of images, categories and annotations (see
    `number_ids`). coco_instances_results.json has the ids of the user's file.
    """

    def __init__(self, dataset_name: str, *args: Any, **kwargs: Any):
        """Take the arguments of COCOEvaluator.

        Raises:
            UserError: the dataset's JSON lacks a key.
        """
        try:
            super().__init__(dataset_name, *args, **kwargs)
        except KeyError as error:
            json_file = MetadataCatalog.get(dataset_name).json_file
            raise UserError(
                f"DATASETS.TEST: {dataset_name} cannot be evaluated, since an entry of {json_file} "
                f"lacks the key {error}. Give the file with --val-json, which adds missing keys."
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
        """Replace the ids in predictions, and in the metadata that map classes to ids."""
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
    write_json(path, results, indent=None)


class CountedEvaluators(DatasetEvaluators):
    """DatasetEvaluators that also count the detections.

    Attributes:
        num_detections: number in the last evaluation, in the main process that of all processes;
            None if the model's outputs have no "instances".
    """

    def __init__(self, evaluators: DatasetEvaluator | list[DatasetEvaluator] | None):
        """
        Args:
            evaluators: as the argument of `inference_on_dataset`.
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
    """Return COCOeval of faster-coco-eval if it is installed, else of pycocotools."""
    if not HAS_FASTER_COCO_EVAL:
        return COCOeval
    from faster_coco_eval.core.faster_eval_api import COCOeval_faster

    return COCOeval_faster


@contextmanager
def _engine(evaluator: COCOEvaluator) -> Iterator[None]:
    if not HAS_FASTER_COCO_EVAL:
        yield
        return
    # Detectron2 takes its compiled engine from this name; a wheel without that lacks the name.
    evaluator._use_fast_impl = True
    stock, coco_evaluation.COCOeval_opt = coco_evaluation.COCOeval_opt, coco_engine()
    try:
        yield
    finally:
        coco_evaluation.COCOeval_opt = stock
