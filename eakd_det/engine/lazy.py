"""Training and evaluation of detectors from Python configs: Detectron2's LazyConfig."""

import argparse
import logging
import os
from typing import Any

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.engine.hooks import EvalHook
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from eakd_det.checkpoint.checkpointer import SafeCheckpointer, load_strictly
from eakd_det.config.defaults import BEST_METRIC
from eakd_det.config.lazy import load_lazy_config, remove_distillation
from eakd_det.data.class_names import dataset_names
from eakd_det.data.registered import explain_no_images
from eakd_det.evaluation.coco import CountedEvaluators
from eakd_det.evaluation.no_detections import warn_of_no_detections
from eakd_det.evaluation.results import write_boxes
from eakd_det.modeling.meta_arch.distilled import Distilled, adapter_modules
from eakd_det.utils.output_dir import TRAINER_FILES
from eakd_det.utils.precision import precision

from .hooks.assembly import complete_hooks, stock_hooks
from .hooks.process_states import ProcessStates
from .hooks.random_states import preserved_random_state
from .launch import set_up
from .restart import changed_start, changed_step, continued, describe_changes, record_launch
from .student_config import NAME as STUDENT_CONFIG
from .student_config import stock_lazy_config
from .train_step.step import DistillStep, log_step_size

logger = logging.getLogger(__name__)


def run_lazy(args: argparse.Namespace) -> None:
    """Train or evaluate a Python config as Detectron2's lazyconfig_train_net.py does.

    A training leaves the same files as that of a YAML config; an evaluation uses the stock
    architecture. Optional keys beside Detectron2's are train.amp.dtype, train.accumulate
    (micro-batches of a step, each of dataloader.train.total_batch_size images),
    train.best_metric, train.prefetch (True), train.fused (True), train.channels_last (False) and
    train.ddp_timeout (1800); the last four are DATALOADER.PREFETCH, SOLVER.FUSED,
    MODEL.CHANNELS_LAST and DDP_TIMEOUT of a YAML config.

    Args:
        args: of Detectron2's argument parser.
    """
    cfg = load_lazy_config(args.config_file, args.opts)
    if args.eval_only:
        _evaluate(cfg, args)
        return
    output_dir = cfg.train.output_dir
    args = continued(args, output_dir)
    teacher = cfg.model.distillation.teacher.weights if "distillation" in cfg.model else ""
    inputs = [cfg.train.init_checkpoint, teacher]
    options = {"resume": args.resume, "overwrite": args.overwrite, "inputs": inputs}
    TRAINER_FILES.check(output_dir, **options)
    comm.synchronize()  # before the first process writes
    note = _keep_step(cfg, args)
    with TRAINER_FILES.starting(output_dir, overwrite=args.overwrite):
        set_up(cfg, args, output_dir)
        if note:
            logger.warning(note)
        student = stock_lazy_config(cfg)
        trainer, checkpointer, test = _build(cfg)
        checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=args.resume)
    record_launch(output_dir)
    if comm.is_main_process():
        LazyConfig.save(student, os.path.join(output_dir, STUDENT_CONFIG))
    start = trainer.iter + 1 if args.resume and checkpointer.has_checkpoint() else 0
    trainer.train(start, cfg.train.max_iter)
    if comm.is_main_process():
        dataset = _dataset_name(cfg.dataloader.get("test"))
        write_boxes(output_dir, test.latest, teacher=teacher, dataset=dataset)


def _keep_step(cfg: DictConfig, args: argparse.Namespace) -> str:
    """Keep the images of a step in a resumed run that has another number of processes.

    It sets train.accumulate, on which the command line has the last word, and the size of a
    micro-batch, dataloader.train.total_batch_size; returned is a sentence about it, or nothing.
    """
    first = changed_start(cfg.train.output_dir, resume=args.resume)
    loader, is_given = cfg.dataloader.train, any("train.accumulate=" in x for x in args.opts)
    if first is None or is_given or "total_batch_size" not in loader:
        return ""
    processes, before = comm.get_world_size(), cfg.train.get("accumulate", 1)
    whole, rate = loader.total_batch_size * before, cfg.optimizer.lr
    micro_batches = first["processes"] * first.get("accumulate", before)
    images, accumulate, new_rate = changed_step(whole, rate, processes, micro_batches)
    changes = {
        "train.accumulate": (before, accumulate),
        "dataloader.train.total_batch_size": (loader.total_batch_size, images // accumulate),
        "optimizer.lr": (rate, new_rate),
    }
    for key, (_, new) in changes.items():
        OmegaConf.update(cfg, key, new)
    return describe_changes(first, changes)


def _evaluate(cfg: DictConfig, args: argparse.Namespace) -> None:
    set_up(cfg, args, cfg.train.output_dir)
    remove_distillation(cfg.model)
    model = instantiate(cfg.model).to(cfg.train.device)
    checkpointer = SafeCheckpointer(model, cfg.train.output_dir)
    newest = checkpointer.get_checkpoint_file() if args.resume else cfg.train.init_checkpoint
    load_strictly(model, newest, key="train.init_checkpoint")
    _test(cfg, model)


def _build(cfg: DictConfig) -> tuple[DistillStep, SafeCheckpointer, "_LastTest"]:
    """Build the trainer of a Python config with its hooks, its checkpointer and its evaluation."""
    train = cfg.train
    model = instantiate(cfg.model).to(train.device)
    if train.get("channels_last", False):
        model.to(memory_format=torch.channels_last)
    if isinstance(model, Distilled):
        model.objective.log_settings()
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    with explain_no_images():
        loader = instantiate(cfg.dataloader.train)
    accumulate = train.get("accumulate", 1)
    if "total_batch_size" in cfg.dataloader.train:  # not every loader has such an argument
        images = cfg.dataloader.train.total_batch_size * accumulate
        log_step_size(images, accumulate, cfg.optimizer.lr, train.max_iter)
    trainer = DistillStep(
        model,
        loader,
        optimizer,
        accumulate=accumulate,
        precision=precision(train.amp.get("dtype", "float16")) if train.amp.enabled else None,
        methods=cfg.model.get("distillation", {}).get("methods", {}),
        output_dir=train.output_dir,
        max_iter=train.max_iter,
        look_ahead=None if train.get("prefetch", True) else False,
        ddp=dict(train.ddp),
        fused=None if train.get("fused", True) else False,
    )
    checkpointer = trainer.build_checkpointer(
        trainer,
        class_names=dataset_names(_dataset_name(cfg.dataloader.train)),
        **adapter_modules(model),
    )
    test = _LastTest(cfg, trainer.model)
    trainer.register_hooks(_hooks(cfg, trainer, checkpointer, test))
    return trainer, checkpointer, test


def _dataset_name(loader: DictConfig | None) -> str:
    """Return the name of the first dataset of a loader, if the config names it."""
    dataset = loader.get("dataset") if loader else None  # it may also be a list of records
    names = dataset.get("names") if isinstance(dataset, DictConfig) else None
    first = next(iter(names), "") if isinstance(names, ListConfig) else names
    return first or ""


class _LastTest(EvalHook):
    """EvalHook of a Python config.

    Attributes:
        latest: the results of the last evaluation, in the main process.
    """

    def __init__(self, cfg: DictConfig, model: nn.Module):
        super().__init__(cfg.train.eval_period, self._test)
        self.cfg, self.model, self.latest = cfg, model, {}

    def _test(self) -> dict[str, Any]:
        self.latest = _test(self.cfg, self.model)
        return self.latest


def _hooks(
    cfg: DictConfig, trainer: DistillStep, checkpointer: SafeCheckpointer, test: _LastTest
) -> list:
    train, saving = cfg.train, dict(cfg.train.checkpointer)
    has_best = train.eval_period and "evaluator" in cfg.dataloader
    stock = stock_hooks(
        trainer,
        checkpointer,
        test,
        scheduler=instantiate(cfg.lr_multiplier),
        saving=saving,
        log_period=train.log_period,
    )
    return complete_hooks(
        stock,
        trainer,
        checkpointer,
        ProcessStates(trainer, saving["period"]),
        eval_period=train.eval_period,
        best_metric=train.get("best_metric", BEST_METRIC) if has_best else "",
    )


def _test(cfg: DictConfig, model: nn.Module) -> dict[str, Any]:
    if "evaluator" not in cfg.dataloader:
        return {}
    with preserved_random_state():
        loader = instantiate(cfg.dataloader.test)
        evaluator = CountedEvaluators(instantiate(cfg.dataloader.evaluator))
        results = inference_on_dataset(model, loader, evaluator)
        if comm.is_main_process() and evaluator.num_detections == 0:
            warn_of_no_detections("dataloader.test", model, next(iter(loader)))
    print_csv_format(results)
    return results
