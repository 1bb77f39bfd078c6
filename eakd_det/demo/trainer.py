"""The trainer of the demo: one line of progress, and evaluations on the way."""

from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.engine.hooks import EvalHook
from detectron2.utils.events import CommonMetricPrinter, EventWriter, get_event_storage
from torch import nn

from eakd_det.engine.hooks.stopwatch import Stopwatch
from eakd_det.engine.trainer import DistillTrainer

EVALUATIONS = 2  # of a run, the last one at its end


class DemoTrainer(DistillTrainer):
    """DistillTrainer with one line of progress in place of Detectron2's, and a stopwatch."""

    def __init__(
        self,
        cfg: CfgNode,
        log: Callable[[int, int, float, float], None],
        evaluate_model: Callable[[nn.Module], dict[str, dict[str, float]]],
    ):
        self.log = log
        self.evaluate_model = evaluate_model
        self.stopwatch = Stopwatch()
        super().__init__(cfg)

    def build_hooks(self) -> list[HookBase]:
        *ours, writer = super().build_hooks()
        period = max(1, self.max_iter // EVALUATIONS)
        on_the_way = EvalHook(
            period, lambda: self.evaluate_model(self.model), eval_after_train=False
        )
        return [self.stopwatch, *ours, on_the_way, writer]

    def build_writers(self) -> list[EventWriter]:
        others = [w for w in super().build_writers() if not isinstance(w, CommonMetricPrinter)]
        return [_ProgressWriter(self), *others]


class _ProgressWriter(EventWriter):
    def __init__(self, trainer: DemoTrainer):
        self.trainer = trainer

    def write(self) -> None:
        storage, trainer = get_event_storage(), self.trainer
        if storage.iter < trainer.max_iter:  # it is called once more when all is done
            loss = storage.history("total_loss").median(20)
            seconds = trainer.stopwatch.seconds / (storage.iter + 1)
            trainer.log(storage.iter + 1, trainer.max_iter, loss, seconds)
