"""Training and evaluation: what Detectron2's DefaultTrainer does not do, and no more."""

import json
import logging
import os
import weakref
from collections import OrderedDict
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import (
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.engine import DefaultTrainer, TrainerBase
from detectron2.engine.defaults import create_ddp_model
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import nn

from eakd_det.checkpoint.checkpointer import SafeCheckpointer, StudentWriter
from eakd_det.config.defaults import stock_config
from eakd_det.data.class_names import dataset_names
from eakd_det.data.mapper import CheckingMapper
from eakd_det.data.registered import check_datasets, no_data_in_words
from eakd_det.evaluation.coco import CountedEvaluators, Evaluator
from eakd_det.evaluation.no_detections import warn_of_no_detections
from eakd_det.evaluation.results import write_result
from eakd_det.modeling.build import load_student, load_teacher, num_classes
from eakd_det.modeling.meta_arch.distilled import Distilled, adapter_modules
from eakd_det.modeling.poolers import pool_as_configured
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_atomically
from eakd_det.utils.precision import precision

from .best_checkpoint import BestCheckpoint
from .frozen_norms import warn_of_identity_norms
from .preemption import Preemption
from .resume import OptimizerSettings, ProcessStates, preserved_random_state
from .run_record import record_parameters
from .step import DistillStep, log_step
from .writers import show_statistics


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
        check_datasets(cfg)
        solver = cfg.SOLVER
        log_step(solver.IMS_PER_BATCH, solver.ACCUMULATE, solver.BASE_LR, solver.MAX_ITER)
        model = student = self.build_model(cfg)
        _pool_as_configured(cfg, model)  # a subclass may build it without
        optimizer = self.build_optimizer(cfg, model)
        with no_data_in_words():
            data_loader = self.build_train_loader(part_of_step(cfg))
        _check_dataset_classes(cfg)
        is_on_gpu = next(model.parameters()).device.type == "cuda"
        device_ids = [comm.get_local_rank()] if is_on_gpu else None
        model = create_ddp_model(model, broadcast_buffers=False, device_ids=device_ids)
        self._trainer = DistillStep(
            model,
            data_loader,
            optimizer,
            accumulate=cfg.SOLVER.ACCUMULATE,
            precision=precision(cfg.SOLVER.AMP.DTYPE) if cfg.SOLVER.AMP.ENABLED else None,
            watched=tuple(f"loss_{name.lower()}" for name in cfg.DISTILL.METHODS),
            output_dir=cfg.OUTPUT_DIR,
            max_iter=solver.MAX_ITER,
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = SafeCheckpointer(
            model,
            cfg.OUTPUT_DIR,
            class_names=_class_names(cfg),
            trainer=weakref.proxy(self),
            **adapter_modules(student),
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())

    def train(self) -> OrderedDict | None:
        """Train, and return the results of the last evaluation (None if there was none).

        They are also in result.json; see `write_result`.
        """
        if comm.is_main_process():
            write_student_config(self.cfg)
            record_parameters(self.cfg.OUTPUT_DIR, self.checkpointer.model)
            warn_of_identity_norms(self.checkpointer.model)
        super().train()
        results = self.__dict__.get("_last_eval_results")
        if results and comm.is_main_process():
            write_result(self.cfg, results)
        return results

    def build_hooks(self) -> list:
        """Detectron2's hooks, with what an exact resume needs and model_best.pth."""
        whole, self.cfg = self.cfg, part_of_step(self.cfg)  # PreciseBN's loader is built by it
        try:
            ours = super().build_hooks()
        finally:
            self.cfg = whole
        savers = [i for i, h in enumerate(ours) if type(h) in (PeriodicCheckpointer, EvalHook)]
        solver, test, names = self.cfg.SOLVER, self.cfg.TEST, self.cfg.DATASETS.TEST
        student, loader = self.checkpointer.model, self._trainer.data_loader
        states = ProcessStates(student, loader, solver.ACCUMULATE, solver.CHECKPOINT_PERIOD)
        position = savers[0]  # of PeriodicCheckpointer, which the main process alone has
        ours.insert(position, states)
        ours.insert(position + 1 + comm.is_main_process(), Preemption(states, self.checkpointer))
        ours.insert(0, OptimizerSettings(self._trainer.optimizer, self.scheduler))
        if comm.is_main_process() and test.EVAL_PERIOD and names:
            names = _class_names(self.cfg)
            writer = StudentWriter(self.model, self.cfg.OUTPUT_DIR, class_names=names)
            best = BestCheckpoint(test.EVAL_PERIOD, writer, best_metric(self.cfg))
            ours.insert(len(ours) - 1, best)  # before the hook that writes the metrics
        return ours

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """The stock model; it and its teacher pool ROIs as MODEL.ROI_HEADS.POOLER_BACKEND says."""
        model = super().build_model(cfg)
        _pool_as_configured(cfg, model)
        return model

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        """The stock loader; a batch is one part of a step.

        The trainer calls it, or a subclass's, with `part_of_step` of its config.
        """
        cfg = part_of_step(cfg)
        return build_detection_train_loader(cfg, mapper=CheckingMapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        """The stock loader, which says in words which image cannot be read."""
        mapper = CheckingMapper(cfg, is_train=False)
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators=None) -> OrderedDict:
        """As the stock one; it says why, where a model finds nothing in a whole dataset.

        A training that goes on afterwards draws the same random numbers as without.
        """
        with preserved_random_state():
            if evaluators is not None:
                return super().test(cfg, model, evaluators)
            names = cfg.DATASETS.TEST
            try:
                ours = {name: CountedEvaluators(cls.build_evaluator(cfg, name)) for name in names}
            except NotImplementedError:  # a subclass evaluates nothing: the stock method warns
                return super().test(cfg, model)
            results = super().test(cfg, model, list(ours.values()))
            for name, evaluator in ours.items():
                if comm.is_main_process() and evaluator.num_detections == 0:
                    inputs = next(iter(cls.build_test_loader(cfg, name)))
                    warn_of_no_detections(name, model, inputs)
        return results

    def build_writers(self) -> list:
        """Detectron2's writers; the terminal line also shows entropies and weights."""
        return show_statistics(super().build_writers(), self.max_iter)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> Evaluator:
        """The COCO evaluator; its files go to OUTPUT_DIR/inference, of several sets to its folders.

        Raises:
            UserError: the dataset has no COCO-format ground truth.
        """
        if MetadataCatalog.get(dataset_name).get("evaluator_type") not in (None, "coco"):
            raise UserError(
                f"DATASETS.TEST: {dataset_name} is not evaluated the COCO way; register it in "
                "COCO format."
            )
        folder = os.path.join(cfg.OUTPUT_DIR, "inference")
        if len(cfg.DATASETS.TEST) > 1:
            folder = os.path.join(folder, dataset_name)
        return Evaluator(dataset_name, output_dir=folder)


def best_metric(cfg: CfgNode) -> str:
    """TEST.BEST_METRIC as evaluations name it: that of the first of several datasets."""
    names = cfg.DATASETS.TEST
    return cfg.TEST.BEST_METRIC if len(names) < 2 else f"{names[0]}/{cfg.TEST.BEST_METRIC}"


def part_of_step(cfg: CfgNode) -> CfgNode:
    """The config of a run whose IMS_PER_BATCH is one part of a step, and ACCUMULATE 1.

    Raises:
        UserError: the images of a step cannot be shared out evenly.
    """
    processes, parts = comm.get_world_size(), cfg.SOLVER.ACCUMULATE
    if cfg.SOLVER.IMS_PER_BATCH % (processes * parts):
        raise UserError(
            f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} cannot be shared out evenly "
            f"among {processes} processes with SOLVER.ACCUMULATE {parts}: make it a multiple "
            f"of {processes * parts}."
        )
    if parts == 1:
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SOLVER.IMS_PER_BATCH //= parts
    cfg.SOLVER.ACCUMULATE = 1
    return cfg


def _pool_as_configured(cfg: CfgNode, model: nn.Module) -> None:
    """`pool_as_configured` of a detector and of its teacher, if it has one."""
    has_teacher = isinstance(model, Distilled) and model.teacher is not None
    pool_as_configured(cfg, model, *([model.teacher.model] if has_teacher else []))


def _check_dataset_classes(cfg: CfgNode) -> None:
    """Compare the model's number of classes with that of the data, which are registered by now."""
    key, here = num_classes(cfg)
    for name in cfg.DATASETS.TRAIN:
        there = len(MetadataCatalog.get(name).get("thing_classes", ()))
        text = f"DATASETS.TRAIN: {name} has {there} classes, {key} is {here}"
        if there > here:
            raise UserError(f"{text}: set it to {there}.")
        if 0 < there < here:
            logging.getLogger(__name__).warning(f"{text}: some are never trained.")


def _class_names(cfg: CfgNode) -> tuple[str, ...]:
    """Class names of the data; checkpoints keep them for students that learn from this one."""
    return dataset_names(next(iter(cfg.DATASETS.TRAIN), ""))


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

    So every evaluation proves that the checkpoint is a stock one; raises as `load_student`.
    """
    check_datasets(cfg, ("TEST",))
    return DistillTrainer.test(*load_student(cfg, weights))


def evaluate_teacher(cfg: CfgNode) -> dict[str, Any]:
    """Evaluate a run's teacher on the run's DATASETS.TEST, with the input sizes of its own config.

    Its files go to OUTPUT_DIR/teacher, the result as result.json.
    """
    teacher, model = load_teacher(cfg)
    teacher.DATASETS.TEST = cfg.DATASETS.TEST
    teacher.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, "teacher")
    results = DistillTrainer.test(teacher, model)
    if comm.is_main_process():
        os.makedirs(teacher.OUTPUT_DIR, exist_ok=True)
        with write_atomically(os.path.join(teacher.OUTPUT_DIR, "result.json")) as f:
            json.dump(results, f, indent=2)
    return results
