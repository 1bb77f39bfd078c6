"""One training of a sweep, by a process of its own on the machine where `train` is called."""

import itertools
import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TextIO

from eakd_det.utils.errors import UserError
from eakd_det.utils.lock import Lock

from . import processes
from .run import Run

POLL_SECONDS = 0.1
ATTEMPTS = 5  # to take the lock of a run
WAIT_SECONDS = 2.0  # between further attempts, each of which writes to the shared disk
ELSEWHERE = "another process has trained it"
STOPPED = (128 + 15, 128 + 10)  # exit codes of a run that SIGTERM or SIGUSR1 has stopped


@dataclass(frozen=True)
class Outcome:
    """End of a job.

    Attributes:
        state: "done"; "failed" by its own fault; "stopped", to go on from its checkpoints when it
            is submitted again; or "elsewhere", since another process trains it.
        reason: of any other state than "done", as "exit code 1"; for "done" the process that has
            trained it, if that was not the job's own.
        output: the last lines of the process's output.
        seconds: time of the training.
    """

    state: str
    reason: str = ""
    output: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        return "; ".join(filter(None, (self.reason, self.output)))


@dataclass(frozen=True)
class Job(ABC):
    """One training of a sweep. It pickles, and can be trained wherever its folders are seen.

    Attributes:
        title: for the log.
        run: the run, or one that needs the teacher.
        command: script of its kind with the arguments, without the interpreter.
        directory: working directory, to which paths are relative.
        gpus: processes of the training, on one machine; each has a GPU, if the machine has any.
        needs: titles of the jobs that must be done before.
        waits: other processes that train it are waited for, since other jobs need its result;
            else it ends as "elsewhere".
    """

    waits: ClassVar[bool] = False

    title: str
    run: Run
    command: list[str]
    directory: str
    gpus: int = 1
    needs: tuple[str, ...] = ()

    @property
    @abstractmethod
    def folder(self) -> Path:
        """OUTPUT_DIR of the training."""

    @property
    @abstractmethod
    def content(self) -> str:
        """Hash of the configs of the training, as they were when the job was made."""

    @abstractmethod
    def result(self) -> str | None:
        """Return the result in words; None if the training is not finished."""

    @abstractmethod
    def lock(self) -> Lock:
        """Return the lock of the folder."""

    @abstractmethod
    def open_log(self, lock: Lock) -> AbstractContextManager[TextIO]:
        """Check the folder, which is locked, and open the file of the process's output.

        Raises:
            UserError: the folder is another's.
        """

    @abstractmethod
    def note(self, outcome: Outcome) -> None:
        """Write the outcome of the training for `eakd_det.sweep.status`, while the lock is held."""


def train(
    job: Job,
    environment: dict[str, str],
    stop: threading.Event,
    *,
    grace: float = processes.STOP_SECONDS,
) -> Outcome:
    """Train a job here, unless it is done or another process trains it; return its outcome.

    It can be called in several threads of a sweep, and in the main thread of a cluster's worker,
    where a handler of signals may set `stop`.

    Args:
        job: its `directory` becomes this process's.
        environment: of the process.
        stop: when set, the process gets SIGTERM, by which it saves a checkpoint.
        grace: seconds that it then has before it is killed.

    Returns:
        The outcome; "elsewhere" only for a job that does not wait.
    """
    if not os.path.isdir(job.directory):
        return Outcome("failed", f"{socket.gethostname()} does not see {job.directory}")
    os.chdir(job.directory)
    try:
        while True:
            outcome = _attempt(job, environment, stop, grace)
            if outcome.state != "elsewhere" or not job.waits:
                return outcome
    except (UserError, OSError) as error:
        return Outcome("failed", str(error))


def _attempt(job: Job, environment: dict[str, str], stop: threading.Event, grace: float) -> Outcome:
    """Train a job once its lock is taken, and note the outcome while it is held."""
    with job.lock() as lock:
        if not _acquire(job, lock, stop):
            return Outcome("stopped" if stop.is_set() else "elsewhere", lock.holder())
        if job.result() is not None:
            return Outcome("done", ELSEWHERE)
        try:
            with job.open_log(lock) as log:
                outcome = _train(job, lock, log, environment, stop, grace)
        except UserError as error:
            outcome = Outcome("failed", str(error))
        if outcome.state != "elsewhere":
            job.note(outcome)
        return outcome


def _acquire(job: Job, lock: Lock, stop: threading.Event) -> bool:
    """Take the lock of a job; if the job waits, try until `stop` is set."""
    for attempt in itertools.count(1):
        if lock.acquire():
            return True
        # A sweep that looks at a lock holds it for a moment.
        if stop.is_set() or (attempt == ATTEMPTS and not job.waits):
            return False
        if job.waits:
            lock.log_waiting(str(job.folder))
        time.sleep(POLL_SECONDS if attempt < ATTEMPTS else WAIT_SECONDS)
    raise AssertionError  # the attempts do not end


def _train(
    job: Job,
    lock: Lock,
    log: TextIO,
    environment: dict[str, str],
    stop: threading.Event,
    grace: float,
) -> Outcome:
    """Train a job in a process, which keeps the lock if it outlives this one."""
    start = time.monotonic()
    environment = environment | lock.heartbeat.variable
    process = processes.start(job.command, log, environment, keep=(lock.file,))
    try:
        # Without stop.wait(), in which a handler of signals must not call stop.set().
        while process.poll() is None and not (stop.is_set() or lock.heartbeat.is_lost):
            time.sleep(POLL_SECONDS)
    finally:
        processes.stop([process], grace)
    code, seconds = process.returncode, time.monotonic() - start
    if code == 0 and job.result() is not None:
        return Outcome("done", seconds=seconds)
    if lock.heartbeat.is_lost:
        return Outcome("elsewhere", lock.holder(), seconds=seconds)
    if stop.is_set():
        return Outcome("stopped", "stopped", seconds=seconds)
    reason = processes.describe_end(code) if code else "no result.json"
    state = "stopped" if code < 0 or code in STOPPED else "failed"
    return Outcome(state, reason, processes.tail(log.name), seconds)
