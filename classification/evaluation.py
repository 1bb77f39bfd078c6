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
        self.hits, self.number = None, 0

    def process(self, inputs: dict[str, Any], outputs: Tensor) -> None:
        """Count a batch.

        Args:
            inputs: with "labels", (N,).
            outputs: logits, (N, C).
        """
        labels = inputs["labels"].to(outputs.device, non_blocking=True)
        best = outputs.topk(min(5, outputs.shape[1]), dim=1).indices
        hits = best == labels[:, None]
        found = torch.stack([hits[:, 0].sum(), hits.sum()])
        self.hits = found if self.hits is None else self.hits + found
        self.number += len(labels)

    def evaluate(self) -> dict[str, float] | None:
        """Return "top1" and "top5" in percent in the main process, else None."""
        hits = [0, 0] if self.hits is None else self.hits.tolist()  # a process may have no images
        gathered = comm.gather([*hits, self.number])
        if not comm.is_main_process():
            return None
        top1, top5, number = (sum(counts) for counts in zip(*gathered, strict=True))
        return {"top1": 100 * top1 / number, "top5": 100 * top5 / number}


def evaluate(model: nn.Module, loader: DataLoader) -> dict[str, float]:
    """Return the accuracy of a model on a loader's batches in the main process, else an empty dict.

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
        self.latest = {}

    def _test(self) -> dict[str, float]:
        self.latest = evaluate(self.model, self.loader)
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
    images = read_images(cfg.DATASET.NAME, cfg.DATASET.ROOT, is_train=False)
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
    source = source_of(cfg.DATASET.NAME)
    model = build_model(cfg.MODEL.NAME, weights, source, key="MODEL")
    distilled = DistilledClassifier(model, channels_last=cfg.MODEL.CHANNELS_LAST)
    return evaluate(distilled.to(cfg.MODEL.DEVICE), read_test_set(cfg))
