"""Checkpoint and exit of a run that a scheduler stops."""

import logging
import signal

from detectron2.engine import HookBase
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer

from eakd_det.engine.signals import StopNotice

from .random_states import RandomStates


class Preemption(HookBase):
    """Stops a run on a signal: a checkpoint, then SystemExit(128 + signal) in each process.

    After the last step, which is saved anyway, it exits before the last evaluation.
    """

    def __init__(self, states: RandomStates, checkpointer: Checkpointer):
        """
        Args:
            states: the run's hook that saves the state of each process.
            checkpointer: of the run; it saves in the main process only.
        """
        self.states, self.checkpointer = states, checkpointer
        self.notice = StopNotice()  # `after_train` closes it even if another hook fails before

    def before_train(self) -> None:
        self.notice.listen()

    def after_step(self) -> None:
        iteration, number = self.trainer.iter, self.notice.agreed()
        if not number or iteration + 1 >= self.trainer.max_iter:
            return
        self.states.gather()
        self.checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
        leave(number, iteration + 1, logging.getLogger(__name__))

    def after_train(self) -> None:
        has_ended = self.trainer.iter >= self.trainer.max_iter  # else an exception propagates
        number = self.notice.agreed_at_last() if has_ended else 0
        self.notice.close()
        if number:
            leave(number, self.trainer.iter, logging.getLogger(__name__))


def leave(number: int, iteration: int, logger: logging.Logger) -> None:
    """Exit with the code of a signal, 128 + number, when all processes have reached this call.

    Args:
        number: of the signal.
        iteration: at which the run will resume.
    """
    comm.synchronize()  # a launcher ends all processes as soon as one exits
    if comm.is_main_process():
        name = signal.Signals(number).name
        logger.info(f"Stopped by {name} at iteration {iteration}: saved; --resume continues")
    raise SystemExit(128 + number)
