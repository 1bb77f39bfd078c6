"""Distillation from Python configs: Detectron2's LazyConfig."""

import argparse
from collections.abc import Iterable
from typing import Any

from detectron2.config import instantiate
from detectron2.engine import default_writers, hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.registry import locate
from omegaconf import DictConfig
from torch import nn

from eakd_det.checkpoint.checkpointer import SafeCheckpointer, StudentWriter, load_strictly
from eakd_det.config.defaults import BEST_METRIC
from eakd_det.config.lazy import load_lazy_config
from eakd_det.data.registered import no_data_in_words
from eakd_det.evaluation.coco import CountedEvaluators
from eakd_det.evaluation.no_detections import warn_of_no_detections
from eakd_det.evaluation.results import write_boxes
from eakd_det.modeling.meta_arch.distilled import adapter_modules
from eakd_det.utils.output_dir import TRAINER_FILES
from eakd_det.utils.precision import precision

from .best_checkpoint import BestCheckpoint
from .frozen_norms import warn_of_identity_norms
from .launch import set_up
from .preemption import Preemption
from .resume import OptimizerSettings, ProcessStates, preserved_random_state
from .run_record import record_parameters
from .step import DistillStep, log_step
from .writers import show_statistics


def run_lazy(args: argparse.Namespace) -> None:
    """Train or evaluate a Python config as Detectron2's lazyconfig_train_net.py does.

    An evaluation goes through the stock architecture. A training leaves what that of a YAML config
    leaves, but student.yaml. Beside Detectron2's keys, train.amp.dtype, train.accumulate (parts of
    a step, each of dataloader.train.total_batch_size images) and train.best_metric are read where
    they are.

    Args:
        args: of Detectron2's argument parser.
    """
    cfg = load_lazy_config(args.config_file, args.opts)
    if args.eval_only:
        _evaluate(cfg, args)
        return
    output_dir = cfg.train.output_dir
    teacher = cfg.model.distillation.teacher.weights if "distillation" in cfg.model else ""
    inputs = [cfg.train.init_checkpoint, teacher]
    options = {"resume": args.resume, "overwrite": args.overwrite, "inputs": inputs}
    TRAINER_FILES.check(output_dir, **options)
    comm.synchronize()  # before the first process writes
    with TRAINER_FILES.starting(output_dir, overwrite=args.overwrite):
        set_up(cfg, args, output_dir)
        trainer, checkpointer, test = _build(cfg)
        checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=args.resume)
    if comm.is_main_process():
        warn_of_identity_norms(checkpointer.model)
    start = trainer.iter + 1 if args.resume and checkpointer.has_checkpoint() else 0
    trainer.train(start, cfg.train.max_iter)
    if comm.is_main_process():
        write_boxes(output_dir, test.latest, teacher=teacher)


def _evaluate(cfg: DictConfig, args: argparse.Namespace) -> None:
    set_up(cfg, args, cfg.train.output_dir)
    if cfg.model.pop("distillation", None) is not None:
        cfg.model._target_ = _class(cfg.model._target_).stock
    model = instantiate(cfg.model).to(cfg.train.device)
    checkpointer = SafeCheckpointer(model, cfg.train.output_dir)
    newest = checkpointer.get_checkpoint_file() if args.resume else cfg.train.init_checkpoint
    load_strictly(model, newest, key="train.init_checkpoint")
    _test(cfg, model)


def _build(cfg: DictConfig) -> tuple[DistillStep, SafeCheckpointer, "_LastTest"]:
    """The trainer of a Python config with its hooks, its checkpointer, and its evaluation."""
    model = student = instantiate(cfg.model).to(cfg.train.device)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    with no_data_in_words():
        loader = instantiate(cfg.dataloader.train)
    device_ids = [comm.get_local_rank()] if cfg.train.device.startswith("cuda") else None
    model = create_ddp_model(model, **{**cfg.train.ddp, "device_ids": device_ids})
    accumulate, amp = cfg.train.get("accumulate", 1), cfg.train.amp
    if "total_batch_size" in cfg.dataloader.train:  # another loader may have no such argument
        images = cfg.dataloader.train.total_batch_size * accumulate
        log_step(images, accumulate, cfg.optimizer.lr, cfg.train.max_iter)
    trainer = DistillStep(
        model,
        loader,
        optimizer,
        accumulate=accumulate,
        precision=precision(amp.get("dtype", "float16")) if amp.enabled else None,
        watched=tuple(f"loss_{name.lower()}" for name in _methods(cfg)),
        output_dir=cfg.train.output_dir,
    )
    checkpointer = SafeCheckpointer(
        model, cfg.train.output_dir, trainer=trainer, **adapter_modules(student)
    )
    states = ProcessStates(student, loader, accumulate, cfg.train.checkpointer.period)
    test = _LastTest(cfg, model)
    trainer.register_hooks([OptimizerSettings(optimizer), *_hooks(cfg, test, states, checkpointer)])
    record_parameters(cfg.train.output_dir, student)
    return trainer, checkpointer, test


def _methods(cfg: DictConfig) -> Iterable[str]:
    return cfg.model.get("distillation", {}).get("methods", {})


def _class(target: type | str) -> type:
    return locate(target) if isinstance(target, str) else target


class _LastTest(hooks.EvalHook):
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
    cfg: DictConfig, test: _LastTest, states: ProcessStates, checkpointer: SafeCheckpointer
) -> list[hooks.HookBase | None]:
    is_main = comm.is_main_process()
    writers = default_writers(cfg.train.output_dir, cfg.train.max_iter) if is_main else []
    return [
        hooks.IterationTimer(),
        hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
        states,
        hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer) if is_main else None,
        Preemption(states, checkpointer),
        test,
        _best(cfg, test.model) if is_main else None,
        hooks.PeriodicWriter(
            show_statistics(writers, cfg.train.max_iter), period=cfg.train.log_period
        )
        if is_main
        else None,
    ]


def _best(cfg: DictConfig, model: nn.Module) -> BestCheckpoint | None:
    """Build the hook that writes model_best.pth, if the run evaluates on the way."""
    if not cfg.train.eval_period or "evaluator" not in cfg.dataloader:
        return None
    metric = cfg.train.get("best_metric", BEST_METRIC)
    return BestCheckpoint(cfg.train.eval_period, StudentWriter(model, cfg.train.output_dir), metric)


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
