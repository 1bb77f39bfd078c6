"""SIGTERM and SIGUSR1, by which a cluster's scheduler stops a run."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import torch
from detectron2.utils import comm
from torch import distributed
from torch.multiprocessing import ProcessExitedException

NAMES = ("SIGTERM", "SIGUSR1")
SIGNALS = tuple(signal.Signals[x] for x in NAMES if x in signal.Signals.__members__)  # on Windows 1

_listening: set[int] = set()  # ids of the processes in which a StopNotice listens


class StopNotice:
    """Records a signal that stops the run, and shares it among the processes of the run.

    While it listens, SIGTERM and SIGUSR1 are recorded and do nothing else, so that the step
    completes. Workers of a data loader ignore them too, since some schedulers signal every process
    of a job and the step still needs its data.
    """

    def __init__(self):
        self.number = 0
        self._pending = None
        self._before = {}

    def listen(self) -> None:
        """Start to record signals; outside the main thread, where Python forbids it, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            return
        _spare_children()
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        _listening.add(os.getpid())

    def agreed(self) -> int:
        """Return the signal by which all processes stop now, or 0; each calls it once a step.

        Several processes exchange their numbers on the CPU and read the result one step later, so
        that they wait neither for a device nor for each other.
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
        """Return the signal that any process has recorded by now, or 0, after the last step."""
        self._read()
        return max(comm.all_gather(self.number))

    def close(self) -> None:
        """Restore the handlers of before, unless the process exits because of a signal.

        Its scheduler may send further signals meanwhile, which stay without effect.
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
def listening() -> Iterator[StopNotice]:
    """Build a StopNotice that listens during the with-block."""
    notice = StopNotice()
    notice.listen()
    try:
        yield notice
    finally:
        notice.close()


@contextmanager
def signals_for_children() -> Iterator[None]:
    """Forward stop signals to the child processes that are started and joined in the with-block.

    Raises:
        SystemExit: 128 + the signal, when they have exited because of it.
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
    """Let processes forked while a StopNotice listens exit on their parent's SIGTERM only."""
    global _is_registered
    if not _is_registered and sys.platform != "win32":  # which starts processes anew
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
