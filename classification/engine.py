"""Training and evaluation of classifiers, on Detectron2's trainer, hooks and checkpointer."""

import logging
import os
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.solver import LRMultiplier
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from fvcore.common.param_scheduler import MultiStepParamScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader

from eakd_det.distillers import method_settings
from eakd_det.distillers.entropy_statistics import LOG_PERIOD
from eakd_det.engine.hooks.assembly import complete_hooks, stock_hooks
from eakd_det.engine.hooks.average_buffers import AverageBuffers
from eakd_det.engine.hooks.best_checkpoint import BestCheckpoint
from eakd_det.engine.hooks.random_states import RandomStates
from eakd_det.engine.hooks.stopwatch import Stopwatch
from eakd_det.engine.hooks.weak_teacher import WeakTeacher
from eakd_det.engine.train_step.step import DistillStep, log_step_size
from eakd_det.utils.cuda_graphs import CudaCapture
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_json
from eakd_det.utils.precision import precision

from .data import read_images
from .distilled import DistilledClassifier
from .distillers import DISTILLERS
from .evaluation import EpochTest, evaluate, read_test_set
from .graphed_pass import GraphedPass, check_graphs
from .loader import build_train_loader
from .models import warn_of_large_stem
from .sources import source_of
from .teacher import build_model, build_teacher
from .teacher_run import known_top1

# Usual ratio of a method's losses to the labels'. Published settings weigh the teacher most (0.1
# for the labels, 0.9 times the square of a temperature of 4): on digits KD's loss is 45 times the
# labels', DKD's 14, FCFD's 43, MLD's 142.
MAX_RATIO = 500.0

logger = logging.getLogger(__name__)


def build_distilled(cfg: CfgNode, steps_per_epoch: int = 1) -> DistilledClassifier:
    """Build the student of a run, with the teacher that its methods need, on its device.

    Raises:
        UserError: a model, weights or methods do not fit.
    """
    settings = method_settings(cfg.DISTILL, DISTILLERS)
    source = source_of(cfg.DATASET)
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
    """DistillStep with the model, data, hooks and checkpoints of a classifier's run."""

    def __init__(self, cfg: CfgNode):
        """
        Args:
            cfg: of `load_config`.

        Raises:
            UserError: the models, data or methods do not fit together.
        """
        seed_all_rng(cfg.SEED + comm.get_rank())
        solver, self.cfg = cfg.SOLVER, cfg
        images = read_images(cfg.DATASET, is_train=True, size=cfg.DATASET.TRAIN_SIZE)
        self.steps_per_epoch = -(-len(images) // solver.BATCH_SIZE)
        max_iter = solver.EPOCHS * self.steps_per_epoch
        self.distilled = build_distilled(cfg, self.steps_per_epoch)
        self.distilled.objective.log_settings()
        images.num_views = self.distilled.num_views
        log_step_size(solver.BATCH_SIZE, solver.ACCUMULATE, solver.BASE_LR, max_iter)
        super().__init__(
            self.distilled,
            build_train_loader(
                images,
                solver.BATCH_SIZE,
                seed=cfg.SEED,
                micro_batches=solver.ACCUMULATE,
                num_workers=cfg.DATASET.NUM_WORKERS,
                device=cfg.MODEL.DEVICE,
            ),
            build_optimizer(cfg, self.distilled),
            accumulate=solver.ACCUMULATE,
            precision=precision(solver.AMP.DTYPE) if solver.AMP.ENABLED else None,
            methods=cfg.DISTILL.METHODS,
            max_ratio=MAX_RATIO,
            output_dir=cfg.OUTPUT_DIR,
            describe=lambda batch: [f"number {i}" for i in batch["indices"].tolist()],
            student=self.distilled.student,
            advice="A lower SOLVER.BASE_LR or smaller weights in DISTILL often help.",
            max_iter=max_iter,
            look_ahead=False,  # the loader copies its batches itself
            ddp={"find_unused_parameters": self.distilled.path_method is not None},
            fused=None if solver.FUSED else False,
        )
        self._graphed: GraphedPass | None = None
        if solver.CUDA_GRAPHS:
            check_graphs(cfg)
            if self._device.type == "cuda":
                self.replay(CudaCapture(self._device))
        adapters, self.class_names = self.distilled.adapters, images.source.names
        self.checkpointer = self.build_checkpointer(
            self,
            class_names=self.class_names,
            **({"helpers": adapters} if list(adapters.parameters()) else {}),  # their name there
        )
        self.test_loader = read_test_set(cfg)

    def replay(self, capture: CudaCapture) -> None:
        """Replay forward and backward pass of the steps, where that is possible."""
        self._graphed = GraphedPass(self.distilled, super()._backward, capture)

    def _backward(self, data: dict[str, Any]) -> dict[str, Tensor]:
        return super()._backward(data) if self._graphed is None else self._graphed(data)

    def run_step(self) -> None:
        """Run one step.

        Raises:
            UserError: as in DistillStep; or a batch norm has a single value, of one image.
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
            resume: continue from the newest checkpoint of the run, if there is one.

        Returns:
            In the main process the content of result.json: "top1", "top5" and "best_top1" of the
            student, "teacher_top1" (None without a teacher), all in percent; "seconds" of training
            and "epochs"; "per_class", the top-1 of each class by name, if the classes have names.
            In others an empty dict.

        Raises:
            UserError: the run to continue has other classes.
        """
        teacher_top1 = self._teacher_top1(self.test_loader)
        stopwatch = Stopwatch()
        test = EpochTest(
            self.distilled,
            self.test_loader,
            stopwatch,
            period=self.cfg.TEST.EVAL_PERIOD,
            steps_per_epoch=self.steps_per_epoch,
        )
        comparison = None if teacher_top1 is None else WeakTeacher("top1", teacher_top1)
        self.register_hooks(self._build_hooks(stopwatch, test, comparison))
        is_resumed = resume and self.checkpointer.has_checkpoint()
        weights = self.cfg.MODEL.WEIGHTS if is_resumed else ""  # which a new run has read
        rest = self.checkpointer.resume_or_load(weights, resume=resume)
        self._check_names(tuple(rest.get("class_names", ())))
        start = self.iter + 1 if is_resumed else 0
        self.data_loader.batch_sampler.start = start
        self.train(start, self.max_iter)
        if not comm.is_main_process():
            return {}
        [best] = [hook for hook in self._hooks if isinstance(hook, BestCheckpoint)]
        result = {
            **test.latest,
            "best_top1": best.best_metric,
            "teacher_top1": teacher_top1,
            "seconds": stopwatch.seconds,
            "epochs": self.cfg.SOLVER.EPOCHS,
        }
        if self.class_names:
            result["per_class"] = dict(zip(self.class_names, test.per_class, strict=True))
        write_json(os.path.join(self.cfg.OUTPUT_DIR, "result.json"), result)
        return result

    def _check_names(self, names: tuple[str, ...]) -> None:
        """Raise UserError if a resumed checkpoint has other classes, or another order of them."""
        if names and self.class_names and names != tuple(self.class_names):
            raise UserError(
                f"{self.cfg.OUTPUT_DIR} cannot be resumed: its classes are {', '.join(names)}, and "
                f"those of the data {', '.join(self.class_names)}."
            )

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

    def _build_hooks(
        self, stopwatch: Stopwatch, test: EpochTest, comparison: WeakTeacher | None
    ) -> list[HookBase]:
        cfg, epoch = self.cfg, self.steps_per_epoch
        scheduler, period = self._build_scheduler(), cfg.SOLVER.CHECKPOINT_PERIOD * epoch
        stock = stock_hooks(
            self,
            self.checkpointer,
            test,
            scheduler=scheduler,
            saving={"period": period, "max_to_keep": cfg.SOLVER.KEEP_CHECKPOINTS or None},
            log_period=min(LOG_PERIOD, epoch),  # or evaluations would be overwritten unread
        )
        return complete_hooks(
            [*stock, stopwatch, AverageBuffers(self.distilled, epoch), comparison],
            self,
            self.checkpointer,
            RandomStates(period, self.distilled),
            scheduler=scheduler,
            eval_period=cfg.TEST.EVAL_PERIOD * epoch,
            best_metric="top1",
        )

    def _build_scheduler(self) -> LRMultiplier:
        """Build the schedule: the learning rate times GAMMA after each epoch of STEPS."""
        solver = self.cfg.SOLVER
        values = [solver.GAMMA**i for i in range(len(solver.STEPS) + 1)]
        schedule = MultiStepParamScheduler(values, milestones=[*solver.STEPS, solver.EPOCHS])
        return LRMultiplier(self.optimizer, schedule, self.max_iter)


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build SGD for the student and the modules that train beside it."""
    solver = cfg.SOLVER
    return torch.optim.SGD(
        model.parameters(),
        lr=solver.BASE_LR,
        momentum=solver.MOMENTUM,
        nesterov=solver.NESTEROV,
        weight_decay=solver.WEIGHT_DECAY,
    )
