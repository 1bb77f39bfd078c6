"""Training and evaluation: what Detectron2's DefaultTrainer does not do, and no more."""

import logging
import os
import weakref
from collections import OrderedDict
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import AMPTrainer, DefaultTrainer, SimpleTrainer, TrainerBase
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter
from detectron2.utils.logger import setup_logger

from .checkpoint import SafeCheckpointer, load_strictly, write_atomically
from .config import stock_config
from .errors import UserError
from .statistics import DistillMetricPrinter


class DistillTrainer(DefaultTrainer):
    """DefaultTrainer with safe checkpoints, COCO evaluation, student.yaml and CPU processes."""

    def __init__(self, cfg: CfgNode):
        # DefaultTrainer's own __init__ leaves no room for another checkpointer, nor for a DDP
        # without device_ids, which a model on the CPU needs.
        TrainerBase.__init__(self)
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.cfg = cfg
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        device_ids = [comm.get_local_rank()] if model.device.type == "cuda" else None
        model = create_ddp_model(model, broadcast_buffers=False, device_ids=device_ids)
        trainer_class = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer = trainer_class(model, data_loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = SafeCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())

    def train(self) -> OrderedDict | None:
        """Train, and return the results of the last evaluation (None if there was none)."""
        if comm.is_main_process():
            write_student_config(self.cfg)
        super().train()
        return self.__dict__.get("_last_eval_results")

    def build_writers(self) -> list:
        """Detectron2's writers; the terminal line also shows entropies and weights."""
        return [
            DistillMetricPrinter(self.max_iter) if type(w) is CommonMetricPrinter else w
            for w in super().build_writers()
        ]

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> COCOEvaluator:
        """The COCO evaluator; its files go to OUTPUT_DIR/inference.

        Raises:
            UserError: the dataset has no COCO-format ground truth.
        """
        if MetadataCatalog.get(dataset_name).get("evaluator_type") not in (None, "coco"):
            raise UserError(
                f"DATASETS.TEST: {dataset_name} is not evaluated the COCO way; register it in "
                "COCO format."
            )
        return COCOEvaluator(dataset_name, output_dir=os.path.join(cfg.OUTPUT_DIR, "inference"))


def write_student_config(cfg: CfgNode) -> None:
    """Write OUTPUT_DIR/student.yaml: a plain Detectron2 config of the student, without our keys.

    Its MODEL.WEIGHTS is the run's final checkpoint.
    """
    student = stock_config(cfg)
    student.MODEL.WEIGHTS = os.path.join(cfg.OUTPUT_DIR, "model_final.pth")
    os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    with write_atomically(os.path.join(cfg.OUTPUT_DIR, "student.yaml")) as f:
        f.write(student.dump())


def evaluate(cfg: CfgNode, weights: str) -> dict[str, Any]:
    """Evaluate a checkpoint on DATASETS.TEST through the stock architecture.

    So every evaluation proves that the checkpoint is a stock one.

    Raises:
        UserError: the weights do not fit the stock model exactly.
    """
    cfg = stock_config(cfg)
    model = build_model(cfg)
    load_strictly(model, weights, key="MODEL.WEIGHTS")
    return DistillTrainer.test(cfg, model)


def use_available_device(cfg: CfgNode) -> None:
    """Set MODEL.DEVICE to "cpu" where it says "cuda" and no GPU is there."""
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
