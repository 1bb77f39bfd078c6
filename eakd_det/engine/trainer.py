"""Training of detectors from YAML configs, on Detectron2's DefaultTrainer."""

import logging
import os
from collections import OrderedDict

import torch
from detectron2.config import CfgNode
from detectron2.data import (
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.engine import DefaultTrainer, TrainerBase
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import nn

from eakd_det.data.class_names import dataset_names
from eakd_det.data.mapper import CheckingMapper
from eakd_det.data.registered import check_datasets, explain_no_images
from eakd_det.evaluation.coco import CountedEvaluators, Evaluator
from eakd_det.evaluation.no_detections import warn_of_no_detections
from eakd_det.evaluation.results import write_result
from eakd_det.modeling.build import num_classes
from eakd_det.modeling.meta_arch.distilled import Distilled, adapter_modules
from eakd_det.modeling.poolers import pool_as_configured
from eakd_det.utils.errors import UserError
from eakd_det.utils.precision import precision

from .hooks.assembly import complete_hooks
from .hooks.process_states import ProcessStates
from .hooks.random_states import preserved_random_state
from .hooks.writers import show_statistics
from .student_config import write_student_config
from .train_step.step import DistillStep, log_step_size


class DistillTrainer(DefaultTrainer):
    """DefaultTrainer with safe checkpoints, COCO evaluation, student.yaml and CPU processes."""

    def __init__(self, cfg: CfgNode):
        # DefaultTrainer's own __init__ allows neither another checkpointer nor DDP without
        # device_ids, which a model on the CPU needs.
        TrainerBase.__init__(self)
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.cfg = cfg
        check_datasets(cfg)
        solver = cfg.SOLVER
        log_step_size(solver.IMS_PER_BATCH, solver.ACCUMULATE, solver.BASE_LR, solver.MAX_ITER)
        model = self.build_model(cfg)
        _as_configured(cfg, model)  # a subclass may build it without
        if isinstance(model, Distilled):
            model.objective.log_settings()
        optimizer = self.build_optimizer(cfg, model)
        with explain_no_images():
            data_loader = self.build_train_loader(micro_batch_config(cfg))
        _check_dataset_classes(cfg)
        self._trainer = DistillStep(
            model,
            data_loader,
            optimizer,
            accumulate=solver.ACCUMULATE,
            precision=precision(solver.AMP.DTYPE) if solver.AMP.ENABLED else None,
            methods=cfg.DISTILL.METHODS,
            output_dir=cfg.OUTPUT_DIR,
            max_iter=solver.MAX_ITER,
            look_ahead=None if cfg.DATALOADER.PREFETCH else False,
            fused=None if solver.FUSED else False,
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        names = dataset_names(next(iter(cfg.DATASETS.TRAIN), ""))
        self.checkpointer = self._trainer.build_checkpointer(
            self, class_names=names, **adapter_modules(model)
        )
        self.start_iter = 0
        self.max_iter = solver.MAX_ITER
        self.register_hooks(self.build_hooks())

    def train(self) -> OrderedDict | None:
        """Train, and return the results of the last evaluation (None without one).

        They are also in result.json; see `write_result`.
        """
        if comm.is_main_process():
            write_student_config(self.cfg)
        super().train()
        results = self.__dict__.get("_last_eval_results")
        if results and comm.is_main_process():
            write_result(self.cfg, results)
        return results

    def build_hooks(self) -> list:
        """Return Detectron2's hooks with those of `complete_hooks`."""
        whole, self.cfg = self.cfg, micro_batch_config(self.cfg)  # for PreciseBN's loader
        try:
            stock = super().build_hooks()
        finally:
            self.cfg = whole
        solver, period, step = self.cfg.SOLVER, self.cfg.TEST.EVAL_PERIOD, self._trainer
        return complete_hooks(
            stock,
            step,
            self.checkpointer,
            ProcessStates(step, solver.CHECKPOINT_PERIOD),
            scheduler=self.scheduler,
            eval_period=period,
            best_metric=best_metric(self.cfg) if period else "",
        )

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Build the stock model; CHANNELS_LAST and POOLER_BACKEND are its and its teacher's."""
        model = super().build_model(cfg)
        _as_configured(cfg, model)
        return model

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        """Build the stock loader; a batch is a micro-batch.

        The trainer calls it, or a subclass's, with the `micro_batch_config` of its config.
        """
        cfg = micro_batch_config(cfg)
        return build_detection_train_loader(cfg, mapper=CheckingMapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        """Build the stock loader; an image that cannot be read is named in a UserError."""
        mapper = CheckingMapper(cfg, is_train=False)
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators=None) -> OrderedDict:
        """Evaluate as the stock method, and log why a model finds nothing in a whole dataset.

        The random state is restored, so that evaluations do not change a training.
        """
        with preserved_random_state():
            if evaluators is not None:
                return super().test(cfg, model, evaluators)
            names = cfg.DATASETS.TEST
            try:
                ours = {name: CountedEvaluators(cls.build_evaluator(cfg, name)) for name in names}
            except NotImplementedError:  # a subclass has no evaluator: the stock method warns
                return super().test(cfg, model)
            results = super().test(cfg, model, list(ours.values()))
            for name, evaluator in ours.items():
                if comm.is_main_process() and evaluator.num_detections == 0:
                    inputs = next(iter(cls.build_test_loader(cfg, name)))
                    warn_of_no_detections(name, model, inputs)
        return results

    def build_writers(self) -> list:
        """Return Detectron2's writers; the terminal line also shows entropies and weights."""
        return show_statistics(super().build_writers(), self.max_iter)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> Evaluator:
        """Build the COCO evaluator; it writes to OUTPUT_DIR/inference, for several sets below it.

        Raises:
            UserError: the dataset has no COCO-format ground truth.
        """
        if MetadataCatalog.get(dataset_name).get("evaluator_type") not in (None, "coco"):
            raise UserError(
                f"DATASETS.TEST: {dataset_name} cannot be evaluated; register it in COCO format."
            )
        folder = os.path.join(cfg.OUTPUT_DIR, "inference")
        if len(cfg.DATASETS.TEST) > 1:
            folder = os.path.join(folder, dataset_name)
        return Evaluator(dataset_name, output_dir=folder)


def best_metric(cfg: CfgNode) -> str:
    """Return the name of TEST.BEST_METRIC in evaluations, on the first of several datasets.

    It is empty without a dataset.
    """
    names = cfg.DATASETS.TEST
    if not names:
        return ""
    return cfg.TEST.BEST_METRIC if len(names) == 1 else f"{names[0]}/{cfg.TEST.BEST_METRIC}"


def micro_batch_config(cfg: CfgNode) -> CfgNode:
    """Return the config with a micro-batch as IMS_PER_BATCH, and ACCUMULATE 1.

    Raises:
        UserError: the images of a step cannot be divided evenly.
    """
    processes, micro_batches = comm.get_world_size(), cfg.SOLVER.ACCUMULATE
    if cfg.SOLVER.IMS_PER_BATCH % (processes * micro_batches):
        raise UserError(
            f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} cannot be divided evenly "
            f"among {processes} processes with SOLVER.ACCUMULATE {micro_batches}: make it a "
            f"multiple of {processes * micro_batches}."
        )
    if micro_batches == 1:
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SOLVER.IMS_PER_BATCH //= micro_batches
    cfg.SOLVER.ACCUMULATE = 1
    return cfg


def _as_configured(cfg: CfgNode, model: nn.Module) -> None:
    """Set the memory format and the ROI pooling of a detector and of its teacher, if it has one."""
    if cfg.MODEL.CHANNELS_LAST:
        model.to(memory_format=torch.channels_last)
    has_teacher = isinstance(model, Distilled) and model.teacher is not None
    pool_as_configured(cfg, model, *([model.teacher.model] if has_teacher else []))


def _check_dataset_classes(cfg: CfgNode) -> None:
    """Compare the number of classes of the model and of the data, once these are registered."""
    key, here = num_classes(cfg)
    for name in cfg.DATASETS.TRAIN:
        there = len(MetadataCatalog.get(name).get("thing_classes", ()))
        text = f"DATASETS.TRAIN: {name} has {there} classes, {key} is {here}"
        if there > here:
            raise UserError(f"{text}: set it to {there}.")
        if 0 < there < here:
            logging.getLogger(__name__).warning(f"{text}: some are never trained.")
