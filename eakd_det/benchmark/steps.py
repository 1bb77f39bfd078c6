"""A detector's training steps as the trainers take them, on a batch that is repeated."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, SimpleTrainer
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage

from eakd_det.config.defaults import stock_config
from eakd_det.engine.train_step.step import DistillStep
from eakd_det.engine.trainer import DistillTrainer
from eakd_det.modeling.poolers import pool_as_configured
from eakd_det.modeling.recorder import record
from eakd_det.modeling.teacher.build import build_teacher
from eakd_det.utils.precision import precision

from .batches import with_options
from .measure import Builders

Batch = list[dict[str, Any]]


class Repeated:
    """An endless loader of one batch, on the CPU as Detectron2's loader returns it."""

    def __init__(self, batch: Any):
        self.batch = batch

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield self.batch


class TrainerStep:
    """Callable that runs the next step of a trainer, as a training without hooks does.

    Attributes:
        trainer: a SimpleTrainer, or one derived from it.
        storage: of the metrics that the trainer writes.
    """

    def __init__(self, trainer: SimpleTrainer, *, cudnn_benchmark: bool = False):
        self.trainer, self.cudnn_benchmark = trainer, cudnn_benchmark
        self.storage = EventStorage()

    def __call__(self) -> None:
        backend = torch.backends.cudnn
        before, backend.benchmark = backend.benchmark, self.cudnn_benchmark
        with self.storage:
            self.trainer.iter = self.storage.iter
            self.trainer.run_step()
            self.storage.step()
        backend.benchmark = before

    def losses(self) -> dict[str, float]:
        """Return the losses of the latest step that was read from the device."""
        scalars = self.storage.latest()
        return {name: value for name, (value, _) in scalars.items() if name.startswith("loss_")}


class _Trainer(DistillTrainer):
    """DistillTrainer on a repeated batch, without hooks."""

    def __init__(self, cfg: CfgNode, batch: Batch):
        self.batch = batch
        # Without a handler; DefaultTrainer would set one up, and whole models would be printed.
        logging.getLogger("detectron2").setLevel(logging.INFO)
        super().__init__(cfg)

    def build_train_loader(self, cfg: CfgNode) -> Repeated:
        return Repeated(self.batch)

    def build_hooks(self) -> list:
        return []


def build_step(cfg: CfgNode, batch: Batch, *, is_stock: bool = False) -> TrainerStep:
    """Build the step of a config: DistillTrainer's, or the stock student's by Detectron2's trainer.

    All steps start with the same student.
    """
    torch.manual_seed(0)
    trainer = stock_trainer(cfg, batch) if is_stock else _distill_step(cfg, batch)
    return TrainerStep(trainer, cudnn_benchmark=cfg.CUDNN_BENCHMARK)


def _distill_step(cfg: CfgNode, batch: Batch) -> DistillStep:
    step = _Trainer(cfg, batch)._trainer
    if step.student.device.type == "cuda" and cfg.DATALOADER.PREFETCH:
        # As with a loader that has worker processes, and pins the images in a thread.
        step.data_loader.batch = [{**x, "image": x["image"].pin_memory()} for x in batch]
        step.looks_ahead = True
    return step


def stock_trainer(cfg: CfgNode, batch: Batch) -> SimpleTrainer:
    """Build Detectron2's SimpleTrainer or AMPTrainer of the stock student.

    It uses MODEL.ROI_HEADS.POOLER_BACKEND. bfloat16 is not scaled, as it does not need to be.
    """
    stock, amp = stock_config(cfg), cfg.SOLVER.AMP
    model = build_model(stock)
    pool_as_configured(cfg, model)
    arguments = model, Repeated(batch), build_optimizer(stock, model)
    if not amp.ENABLED:
        return SimpleTrainer(*arguments)
    dtype = precision(amp.DTYPE)
    scaler = torch.amp.GradScaler(model.device.type, enabled=dtype == torch.float16)
    return AMPTrainer(*arguments, grad_scaler=scaler, precision=dtype)


def step_builders(cfg: CfgNode, variants: dict[str, dict[str, Any]], batch: Batch) -> Builders:
    """Return name -> function that builds the step of the variant, for `measure`.

    Args:
        variants: name -> config keys; a name that starts with "stock" is a stock step.
    """
    return {
        name: partial(
            build_step, with_options(cfg, options), batch, is_stock=name.startswith("stock")
        )
        for name, options in variants.items()
    }


def build_lower_bound(cfg: CfgNode, batch: Batch) -> Callable[[], None]:
    """Build a stock step followed by the forward pass of the prepared teacher."""
    stock = build_step(cfg, batch, is_stock=True)
    teacher = build_teacher(cfg)
    teacher.prepare(keep_levels=False)
    with record(pooler=stock.trainer.model.roi_heads.box_pooler) as calls:
        stock()
    boxes = [Boxes(x.tensor.detach()) for x in calls["pooler"][0].args[1]]

    def step() -> None:
        stock()
        teacher.roi_outputs(teacher.features(batch, cfg.INPUT.FORMAT), boxes)

    return step


def teacher_builders(cfg: CfgNode, batch: Batch) -> Builders:
    """Return builders of forward passes of the teacher's backbone from raw images."""

    def build(options: dict[str, Any]) -> Callable[[], object]:
        teacher = build_teacher(with_options(cfg, options))
        teacher.prepare(keep_levels=False)
        return lambda: teacher.features(batch, cfg.INPUT.FORMAT)

    return {
        "teacher_backbone_stock": lambda: build({"TEACHER.FAST": False}),
        "teacher_backbone": lambda: build({}),
        "teacher_backbone_bf16": lambda: build({"TEACHER.PRECISION": "bfloat16"}),
    }
