"""Signals by which a scheduler ends a run: it is saved, and all its processes leave together."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer
from torch import distributed
from torch.multiprocessing import ProcessExitedException

from eakd_det.engine.hooks.random_states import RandomStates

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

_listening: set[int] = set()  # process ids in which a Notice is taken of the signals


class Notice:
    """Whether the run has been told to stop, in any of its processes.

    While it listens, SIGTERM and SIGUSR1 are noted and do nothing else, so that a step ends as it
    began. The workers of a data loader are left alone by them, too, even where they are sent to
    every process of a job: the step still needs its data.
    """

    def __init__(self):
        self.number = 0
        self._pending = None
        self._before = {}

    def listen(self) -> None:
        """Take notice from here on; outside the main thread, where Python forbids it, nothing."""
        if threading.current_thread() is not threading.main_thread():
            return
        _spare_children()
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        _listening.add(os.getpid())

    def agreed(self) -> int:
        """The signal by which all processes stop now, or 0; called in each, once a step.

        Of several processes each tells the others a number on the CPU and reads theirs one step
        later, so that nobody waits for a device, nor for another process.
        """
        if comm.get_world_size() == 1:
            return self.number
        number = self._read()
        flag = torch.tensor(self.number)
        group = comm._get_global_gloo_group()
        highest = distributed.ReduceOp.MAX
        self._pending = distributed.all_reduce(flag, highest, group, async_op=True), flag
        return number

    def agreed_at_last(self) -> int:
        """As `agreed`, but of now: when all processes have taken their last step."""
        self._read()
        return max(comm.all_gather(self.number))

    def close(self) -> None:
        """Let the signals do what they did before; in a process that leaves by one, still nothing.

        Whoever has sent it one may send more meanwhile.
        """
        _listening.discard(os.getpid())
        if not self.number:
            for number, handler in self._before.items():
                signal.signal(number, handler)
        self._before = {}

    def _read(self) -> int:
        if self._pending is None:
            return 0
        work, flag = self._pending
        self._pending = None
        work.wait()
        return int(flag)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.number = number


@contextmanager
def listening() -> Iterator[Notice]:
    """A Notice that listens as long as the with-block lasts."""
    notice = Notice()
    notice.listen()
    try:
        yield notice
    finally:
        notice.close()


class Preemption(HookBase):
    """Ends a run that is told to stop: a checkpoint, then SystemExit(128 + signal) in each process.

    The hook comes after all that change the state of a step, and before those that evaluate. After
    the last step, which is saved anyway, it leaves before the last evaluation.
    """

    def __init__(self, states: RandomStates, checkpointer: Checkpointer):
        """
        Args:
            states: the run's hook that keeps what each process goes on with.
            checkpointer: of the run; it saves in the main process alone.
        """
        self.states, self.checkpointer = states, checkpointer

    def before_train(self) -> None:
        self.notice = Notice()
        self.notice.listen()

    def after_step(self) -> None:
        iteration, number = self.trainer.iter, self.notice.agreed()
        if not number or iteration + 1 >= self.trainer.max_iter:
            return
        self.states.gather()
        self.checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
        leave(number, iteration + 1, logging.getLogger(__name__))

    def after_train(self) -> None:
        has_ended = self.trainer.iter >= self.trainer.max_iter  # else an exception is on its way
        number = self.notice.agreed_at_last() if has_ended else 0
        self.notice.close()
        if number:
            leave(number, self.trainer.iter, logging.getLogger(__name__))


def leave(number: int, iteration: int, logger: logging.Logger) -> None:
    """End the process, when all have come to here, with the exit code of a signal: 128 + number.

    Args:
        iteration: with which the run will go on.
    """
    comm.synchronize()  # a launcher ends all as soon as one has left
    if comm.is_main_process():
        name = signal.Signals(number).name
        logger.info(f"Stopped by {name} at iteration {iteration}: saved; --resume goes on")
    raise SystemExit(128 + number)


@contextmanager
def signals_for_children() -> Iterator[None]:
    """Pass stopping signals on to the processes that are started, and waited for, in the block.

    Raises:
        SystemExit: 128 + the signal, when they have ended by it.
    """
    passed_on = []

    def pass_on(number: int, _: FrameType | None) -> None:
        passed_on.append(number)
        for child in multiprocessing.active_children():
            with suppress(ProcessLookupError):
                os.kill(child.pid, number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield
    except ProcessExitedException as error:
        if passed_on:
            raise SystemExit(128 + passed_on[-1]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _spare_children() -> None:
    """Let processes that are forked while a Notice listens obey SIGTERM of their parent alone."""
    global _is_registered
    if not _is_registered:
        os.register_at_fork(after_in_child=_obey_parent_alone)
        _is_registered = True


_is_registered = False


def _obey_parent_alone() -> None:
    if os.getppid() not in _listening:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while True:
        received = signal.sigwaitinfo(SIGNALS)
        if received.si_signo == signal.SIGTERM and received.si_pid == os.getppid():
            os._exit(0)
