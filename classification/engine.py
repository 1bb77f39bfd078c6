"""Training and evaluation of classifiers, on Detectron2's trainer, hooks and checkpointer."""

import json
import logging
import os
import re
import weakref
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_writers, hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.solver import LRMultiplier
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from fvcore.common.param_scheduler import MultiStepParamScheduler
from torch import nn
from torch.utils.data import DataLoader

from eakd_det.checkpoint.checkpointer import SafeCheckpointer, StudentWriter
from eakd_det.distillers import method_settings
from eakd_det.distillers.entropy_statistics import LOG_PERIOD
from eakd_det.engine.best_checkpoint import BestCheckpoint
from eakd_det.engine.preemption import Preemption
from eakd_det.engine.resume import OptimizerSettings, RandomStates, Stopwatch
from eakd_det.engine.run_record import record_parameters
from eakd_det.engine.step import DistillStep, log_step
from eakd_det.engine.weak_teacher import WeakTeacher
from eakd_det.engine.writers import show_statistics
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_atomically
from eakd_det.utils.precision import precision

from .buffers import AverageBuffers
from .data import read_images
from .distilled import DistilledClassifier
from .distillers import DISTILLERS
from .evaluation import EpochTest, evaluate, read_test_set
from .loader import build_train_loader
from .models import warn_of_large_stem
from .sources import source_of
from .teacher import build_model, build_teacher, known_top1

# Published settings give the teacher most of the say (0.1 for the labels, 0.9 times the square of a
# temperature of 4): on digits KD's loss is 45 times the labels', DKD's 14, FCFD's 43, MLD's 142.
MOST_TIMES_LABELS = 500.0

logger = logging.getLogger(__name__)


def build_distilled(cfg: CfgNode, steps_per_epoch: int = 1) -> DistilledClassifier:
    """The student of a run, with the teacher that its methods need, on its device.

    Raises:
        UserError: a model, weights or methods do not fit.
    """
    settings = method_settings(cfg.DISTILL, DISTILLERS)
    source = source_of(cfg.DATASET.NAME)
    student = build_model(cfg.MODEL.NAME, cfg.MODEL.WEIGHTS, source, key="MODEL")
    warn_of_large_stem(student, cfg.MODEL.NAME, source.image_size, key="MODEL")
    distilled = DistilledClassifier(
        student,
        build_teacher(cfg) if settings["methods"] else None,
        **settings,
        ce_weight=cfg.DISTILL.CE_WEIGHT,
        layers=tuple(cfg.MODEL.LAYERS),
        image_size=source.image_size,
        channels_last=cfg.MODEL.CHANNELS_LAST,
        steps_per_epoch=steps_per_epoch,
        seed=cfg.SEED,
    )
    return distilled.to(cfg.MODEL.DEVICE)


class ClassifierTrainer(DistillStep):
    """DistillStep on the model, data, hooks and checkpoints of a run."""

    def __init__(self, cfg: CfgNode):
        """
        Args:
            cfg: of `load_config`.

        Raises:
            UserError: something in it does not fit.
        """
        seed_all_rng(cfg.SEED + comm.get_rank())
        solver, self.cfg = cfg.SOLVER, cfg
        images = read_images(
            cfg.DATASET.NAME, cfg.DATASET.ROOT, is_train=True, size=cfg.DATASET.TRAIN_SIZE
        )
        self.steps_per_epoch = -(-len(images) // solver.BATCH_SIZE)
        self.distilled = build_distilled(cfg, self.steps_per_epoch)
        images.num_views = self.distilled.num_views
        log_step(
            solver.BATCH_SIZE,
            solver.ACCUMULATE,
            solver.BASE_LR,
            solver.EPOCHS * self.steps_per_epoch,
        )
        device_ids = [comm.get_local_rank()] if cfg.MODEL.DEVICE.startswith("cuda") else None
        super().__init__(
            create_ddp_model(
                self.distilled,
                broadcast_buffers=False,
                device_ids=device_ids,
                find_unused_parameters=self.distilled.path_method is not None,
            ),
            build_train_loader(
                images,
                solver.BATCH_SIZE,
                seed=cfg.SEED,
                parts=solver.ACCUMULATE,
                num_workers=cfg.DATASET.NUM_WORKERS,
                device=cfg.MODEL.DEVICE,
            ),
            build_optimizer(cfg, self.distilled),
            accumulate=solver.ACCUMULATE,
            precision=precision(solver.AMP.DTYPE) if solver.AMP.ENABLED else None,
            watched=tuple(f"loss_{name.lower()}" for name in cfg.DISTILL.METHODS),
            most_times_task=MOST_TIMES_LABELS,
            output_dir=cfg.OUTPUT_DIR,
            describe=lambda batch: [f"number {i}" for i in batch["indices"].tolist()],
            saved=self.distilled.student,
            advice="A lower SOLVER.BASE_LR or smaller weights in DISTILL often help.",
        )
        adapters = self.distilled.adapters
        self.checkpointer = SafeCheckpointer(
            self.distilled.student,
            cfg.OUTPUT_DIR,
            save_to_disk=comm.is_main_process(),
            trainer=weakref.proxy(self),
            **({"helpers": adapters} if len(adapters) else {}),  # the name in checkpoints
        )
        self.test_loader = read_test_set(cfg)

    def run_step(self) -> None:
        """As DistillStep's.

        Raises:
            UserError: as there; or a batch of one image leaves a batch norm one value.
        """
        try:
            super().run_step()
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                f"{self.cfg.MODEL.NAME} normalises over the batch and cannot train on one image: "
                "let DATASET.TRAIN_SIZE or SOLVER.BATCH_SIZE leave more for the last step."
            ) from error

    def fit(self, *, resume: bool = False) -> dict[str, Any]:
        """Train to the last epoch.

        Args:
            resume: go on from the newest checkpoint of the run, if there is one.

        Returns:
            In the main process what result.json gets: "top1", "top5" and "best_top1" of the
            student, "teacher_top1" (None without a teacher), all in percent; "seconds" of training
            and "epochs".
        """
        epochs = self.cfg.SOLVER.EPOCHS
        record_parameters(self.cfg.OUTPUT_DIR, self.distilled.student)
        loader = self.test_loader
        teacher_top1 = self._teacher_top1(loader)
        stopwatch = Stopwatch()
        test = EpochTest(
            self.distilled,
            loader,
            stopwatch,
            period=self.cfg.TEST.EVAL_PERIOD,
            steps_per_epoch=self.steps_per_epoch,
        )
        best = self._build_best()
        self.register_hooks(self._build_hooks(stopwatch, test, best, resume))
        if teacher_top1 is not None:
            self.register_hooks([WeakTeacher("top1", teacher_top1)])
        is_resumed = resume and self.checkpointer.has_checkpoint()
        weights = self.cfg.MODEL.WEIGHTS if is_resumed else ""  # which a new run has read
        self.checkpointer.resume_or_load(weights, resume=resume)
        start = self.iter + 1 if is_resumed else 0
        self.data_loader.batch_sampler.start = start
        self.train(start, epochs * self.steps_per_epoch)
        if not comm.is_main_process():
            return {}
        result = {
            **test.latest,
            "best_top1": best.best_metric,
            "teacher_top1": teacher_top1,
            "seconds": stopwatch.seconds,
            "epochs": epochs,
        }
        with write_atomically(os.path.join(self.cfg.OUTPUT_DIR, "result.json")) as f:
            json.dump(result, f, indent=2)
        return result

    def _teacher_top1(self, loader: DataLoader) -> float | None:
        if self.distilled.teacher is None:
            return None
        top1 = known_top1(self.cfg)
        if top1 is None:
            channels_last = self.cfg.MODEL.CHANNELS_LAST
            model = DistilledClassifier(self.distilled.teacher.model, channels_last=channels_last)
            model.eval()
            top1 = evaluate(model, loader).get("top1")
            self.distilled.train()  # which sets the mode of the teacher, too
        if top1 is not None:
            logger.info("The teacher's top-1 is %.2f", top1)
        return top1

    def _build_best(self) -> BestCheckpoint | None:
        if not comm.is_main_process():
            return None
        period = self.cfg.TEST.EVAL_PERIOD * self.steps_per_epoch
        writer = StudentWriter(self.distilled.student, self.cfg.OUTPUT_DIR)
        return BestCheckpoint(period, writer, "top1")

    def _build_hooks(
        self, stopwatch: Stopwatch, test: EpochTest, best: BestCheckpoint | None, resume: bool
    ) -> list[hooks.HookBase | None]:
        cfg, is_main = self.cfg, comm.is_main_process()
        max_iter = cfg.SOLVER.EPOCHS * self.steps_per_epoch
        save_period = cfg.SOLVER.CHECKPOINT_PERIOD * self.steps_per_epoch
        log_period = min(LOG_PERIOD, self.steps_per_epoch)  # or tests would be overwritten unread
        scheduler, states = self._build_scheduler(), RandomStates(save_period, self.distilled)
        writers = default_writers(cfg.OUTPUT_DIR, max_iter) if is_main else []
        return [
            hooks.IterationTimer(),
            stopwatch,
            OptimizerSettings(self.optimizer, scheduler),
            hooks.LRScheduler(scheduler=scheduler),
            AverageBuffers(self.distilled, self.steps_per_epoch),
            states,
            self._build_saver(save_period, resume) if is_main else None,
            Preemption(states, self.checkpointer),
            test,
            best,
            hooks.PeriodicWriter(show_statistics(writers, max_iter), period=log_period)
            if is_main
            else None,
        ]

    def _build_saver(self, period: int, resume: bool) -> hooks.PeriodicCheckpointer:
        """A resumed run also counts the checkpoints that it left before it was stopped."""
        keep = self.cfg.SOLVER.KEEP_CHECKPOINTS or None
        saver = _Saver(self.checkpointer, period, max_to_keep=keep)
        if not resume:
            return saver
        files = sorted(self.checkpointer.get_all_checkpoint_files())
        periodic = re.compile(r"model_\d+\.pth")
        saver.recent_checkpoints = [f for f in files if periodic.fullmatch(os.path.basename(f))]
        return saver

    def _build_scheduler(self) -> LRMultiplier:
        """The learning rate falls by GAMMA after each epoch of STEPS."""
        solver = self.cfg.SOLVER
        values = [solver.GAMMA**i for i in range(len(solver.STEPS) + 1)]
        schedule = MultiStepParamScheduler(values, milestones=[*solver.STEPS, solver.EPOCHS])
        return LRMultiplier(self.optimizer, schedule, solver.EPOCHS * self.steps_per_epoch)


class _Saver(hooks.PeriodicCheckpointer):
    """PeriodicCheckpointer that keeps as many, also where a run was stopped between two of them."""

    def after_step(self) -> None:
        super().after_step()
        if self.max_to_keep is not None and (self.trainer.iter + 1) % self.period == 0:
            while len(self.recent_checkpoints) > self.max_to_keep:
                oldest = self.recent_checkpoints.pop(0)
                if os.path.exists(oldest):
                    os.remove(oldest)


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """SGD on the student and on what trains with it."""
    solver = cfg.SOLVER
    return torch.optim.SGD(
        model.parameters(),
        lr=solver.BASE_LR,
        momentum=solver.MOMENTUM,
        nesterov=solver.NESTEROV,
        weight_decay=solver.WEIGHT_DECAY,
    )
