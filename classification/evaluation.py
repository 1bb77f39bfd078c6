"""Top-1 and top-5 accuracy of classifiers."""

import logging
from datetime import timedelta
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine.hooks import EvalHook
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.utils import comm
from torch import Tensor, nn
from torch.utils.data import DataLoader

from eakd_det.engine.hooks.random_states import preserved_random_state
from eakd_det.engine.hooks.stopwatch import Stopwatch
from eakd_det.utils.errors import UserError

from .data import read_images
from .distilled import DistilledClassifier
from .loader import build_test_loader
from .sources import source_of
from .teacher import build_model

FEW_BATCHES = 100  # up to this number, an evaluation logs one line

logger = logging.getLogger(__name__)


class TopKEvaluator(DatasetEvaluator):
    """Counts correct predictions of all processes, read from the device once at the end."""

    def reset(self) -> None:
        self.counts = None

    def process(self, inputs: dict[str, Any], outputs: Tensor) -> None:
        """Count a batch.

        Args:
            inputs: with "labels", (N,).
            outputs: logits, (N, C).
        """
        labels = inputs["labels"].to(outputs.device, non_blocking=True)
        best = outputs.topk(min(5, outputs.shape[1]), dim=1).indices
        hits = best == labels[:, None]
        # Of each class: images, hits of the best class, and hits of the five best.
        counted = torch.stack([torch.ones_like(labels), hits[:, 0], hits.any(dim=1)])
        found = counted.new_zeros(3, outputs.shape[1])
        found.scatter_add_(1, labels.expand(3, -1), counted)
        self.counts = found if self.counts is None else self.counts + found

    def evaluate(self) -> dict[str, Any] | None:
        """Return the accuracy in percent in the main process, else None.

        "top1" and "top5" are those of all images, and "per_class" is the list of the classes' own
        top-1, None for a class without images.
        """
        gathered = comm.gather(None if self.counts is None else self.counts.cpu())
        if not comm.is_main_process():
            return None
        images, *hits = sum(x for x in gathered if x is not None).tolist()  # some may have none
        top1, top5 = (100 * sum(x) / sum(images) for x in hits)
        per_class = [100 * a / b if b else None for a, b in zip(hits[0], images, strict=True)]
        return {"top1": top1, "top5": top5, "per_class": per_class}


def evaluate(model: nn.Module, loader: DataLoader) -> dict[str, Any]:
    """Return what `TopKEvaluator` does of a loader's batches, an empty dict in other processes.

    The random state is restored, so that evaluations do not change a training.
    """
    evaluator_log = logging.getLogger(inference_on_dataset.__module__)
    level = evaluator_log.level
    if len(loader) <= FEW_BATCHES:  # more lines at every epoch would hide the others
        evaluator_log.setLevel(logging.WARNING)
    try:
        with preserved_random_state():
            return inference_on_dataset(model, loader, TopKEvaluator())
    finally:
        evaluator_log.setLevel(level)


class EpochTest(EvalHook):
    """EvalHook at the end of epochs, which logs the accuracy and the remaining time.

    Attributes:
        latest: "top1" and "top5", in the main process.
        per_class: top-1 of each class, likewise.
    """

    def __init__(
        self,
        model: nn.Module,
        loader: DataLoader,
        stopwatch: Stopwatch,
        *,
        period: int,
        steps_per_epoch: int,
    ):
        """
        Args:
            model: takes the loader's batches.
            stopwatch: of the training.
            period: epochs between two evaluations.
        """
        super().__init__(period * steps_per_epoch, self._test)
        self.model, self.loader, self.stopwatch = model, loader, stopwatch
        self.steps_per_epoch = steps_per_epoch
        self.latest, self.per_class = {}, []

    def _test(self) -> dict[str, float]:
        self.latest = evaluate(self.model, self.loader)
        self.per_class = self.latest.pop("per_class", [])  # too many curves
        if self.latest:
            done = min(self.trainer.iter + 1, self.trainer.max_iter)
            left = self.stopwatch.seconds / done * (self.trainer.max_iter - done)
            logger.info(
                "Epoch %d/%d: top-1 %.2f  top-5 %.2f  left: %s",
                *(n // self.steps_per_epoch for n in (done, self.trainer.max_iter)),
                *(self.latest["top1"], self.latest["top5"]),
                timedelta(seconds=round(left)),
            )
        return self.latest


def read_test_set(cfg: CfgNode) -> DataLoader:
    """Build the loader of a run's test images, with this process's share of them."""
    images = read_images(cfg.DATASET, is_train=False)
    return build_test_loader(
        images,
        cfg.TEST.BATCH_SIZE,
        num_workers=cfg.DATASET.NUM_WORKERS,
        device=cfg.MODEL.DEVICE,
    )


def evaluate_weights(cfg: CfgNode, weights: str) -> dict[str, float]:
    """Return the accuracy of a student's checkpoint: "top1" and "top5", in the main process.

    Raises:
        UserError: the weights do not fit.
    """
    if not weights:
        raise UserError("MODEL.WEIGHTS is empty: name a checkpoint.")
    source = source_of(cfg.DATASET)
    model = build_model(cfg.MODEL.NAME, weights, source, key="MODEL")
    distilled = DistilledClassifier(model, channels_last=cfg.MODEL.CHANNELS_LAST)
    found = evaluate(distilled.to(cfg.MODEL.DEVICE), read_test_set(cfg))
    return {key: found[key] for key in ("top1", "top5") if found}
