"""State of each process of a detector's run, restored in a resumed run."""

from typing import Any

from detectron2.modeling import RetinaNet

from eakd_det.engine.train_step.step import DistillStep

from .data_position import sampler_seed, skip_batches
from .random_states import RandomStates, set_random_state


class ProcessStates(RandomStates):
    """RandomStates that also restores the position of a detector's run in its training data.

    Beside the random state it saves the seed of the training sampler, and the running loss
    normalizer of a RetinaNet, which its state_dict lacks. The name of the class is the key of its
    state in checkpoints.
    """

    def __init__(self, step: DistillStep, period: int):
        """
        Args:
            step: of the run, on Detectron2's training loader.
            period: iterations between two checkpoints.
        """
        super().__init__(period)
        self.student, self.loader = step.student, step.data_loader
        self.micro_batches = step.accumulate

    def before_train(self) -> None:
        state = self._own_state()
        if self.trainer.start_iter:
            seed = self.loaded[0]["sampler_seed"] if self.loaded else None  # the same in each
            skip_batches(self.loader, self.trainer.start_iter * self.micro_batches, seed=seed)
        if state is None:
            return
        if state["loss_normalizer"] is not None:
            self.student.loss_normalizer = state["loss_normalizer"]
        set_random_state(state["random"])

    def _state(self) -> dict[str, Any]:
        is_retina = isinstance(self.student, RetinaNet)
        return {
            **super()._state(),
            "sampler_seed": sampler_seed(self.loader),
            "loss_normalizer": self.student.loss_normalizer if is_retina else None,
        }
