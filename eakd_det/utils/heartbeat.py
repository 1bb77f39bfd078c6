"""Heartbeat of a training: a file by which other machines see on a shared disk that it runs.

Its holder touches it. Its age is measured by the clock of the file server, against a file that is
made there at that moment, so that the clocks of the machines need not agree.
"""

import functools
import json
import logging
import os
import socket
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from .files import write_json

logger = logging.getLogger(__name__)

BEAT_SECONDS = 10.0  # between two touches
DEAD_SECONDS = 60.0  # age from which the holder counts as dead
CONFIRM_SECONDS = 12.0  # without a beat before it is taken over: the file server may have stalled
VARIABLE = "EAKD_HEARTBEAT"  # TOKEN:PATH of the heartbeat that a process keeps too


@dataclass(frozen=True)
class Holder:
    """Content of a heartbeat file.

    Attributes:
        token: of this holding, unlike any other.
        host, pid: machine and process.
        kernel: the running system, which containers of a machine have in common.
        job: number of its SLURM job; empty without one.
        since: time of the start, in seconds since the epoch.
        beat: time of the last beat, by the clock of the file server.
    """

    token: str
    host: str
    pid: int
    kernel: str
    job: str
    since: float
    beat: float = 0.0

    def __str__(self) -> str:
        return f"{f'job {self.job}' if self.job else f'process {self.pid}'} on {self.host}"


def read_holder(path: str | Path) -> Holder | None:
    """Read a heartbeat file; None if there is none."""
    try:
        with open(path) as f:  # an opened file has the server's current times
            return Holder(**json.load(f), beat=os.fstat(f.fileno()).st_mtime)
    except FileNotFoundError:
        return None


def server_time(folder: str | Path) -> float:
    """Return the time by the clock of the file server that has a folder."""
    with tempfile.TemporaryFile(dir=folder) as f:
        return os.fstat(f.fileno()).st_mtime


class Heartbeat:
    """Heartbeat file, which one process holds from `acquire` to `release`.

    Attributes:
        path: of the file.
        token: of the holding.
        is_lost: another process has taken over, since no beat was written for `DEAD_SECONDS`.
    """

    def __init__(self, path: str):
        self.path = os.path.abspath(path)
        self.token = uuid4().hex
        self.is_lost = False
        self._ended = threading.Event()

    @property
    def variable(self) -> dict[str, str]:
        """Environment variable by which a child keeps the heartbeat if its parent is killed."""
        return {VARIABLE: f"{self.token}:{self.path}"}

    def is_held(self, *, is_alone: bool) -> bool:
        """Return whether another process holds it.

        Args:
            is_alone: no other process of this machine does, as a lock shows.
        """
        holder = read_holder(self.path)
        if holder is None or (is_alone and holder.kernel == _kernel()):
            return False
        return self._age(holder) < DEAD_SECONDS

    def is_dead(self) -> bool:
        """Return whether a process of another machine holds it that does not beat any more."""
        holder = read_holder(self.path)
        return (
            holder is not None and holder.kernel != _kernel() and self._age(holder) >= DEAD_SECONDS
        )

    def acquire(self, *, is_alone: bool) -> bool:
        """Take the heartbeat, also of a dead holder; return False if another process holds it.

        Of several processes one takes it: the one that makes the file PATH.taking. That of a dead
        holder is watched for CONFIRM_SECONDS before.
        """
        taking = f"{self.path}.taking"
        try:
            os.close(os.open(taking, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            self._remove_abandoned(taking)
            return False
        try:
            if self.is_held(is_alone=is_alone) or self._beats_again(is_alone):
                return False
            own = {"host": socket.gethostname(), "pid": os.getpid(), "kernel": _kernel()}
            own |= {"job": os.environ.get("SLURM_JOB_ID", ""), "since": time.time()}
            write_json(self.path, {"token": self.token, **own})
        finally:
            os.remove(taking)
        self._ended = threading.Event()
        threading.Thread(target=self._beat, args=(self._ended,), daemon=True).start()
        return True

    def release(self) -> None:
        """Stop beating, and remove the file unless another process has taken it over."""
        self._ended.set()
        holder = read_holder(self.path)
        if holder is not None and holder.token == self.token:
            os.remove(self.path)

    def _beats_again(self, is_alone: bool) -> bool:
        """Return whether a holder beats that seemed dead, as all do while a file server stalls."""
        holder = read_holder(self.path)
        if holder is None or (is_alone and holder.kernel == _kernel()):
            return False
        time.sleep(CONFIRM_SECONDS)
        return read_holder(self.path) != holder

    def _age(self, holder: Holder) -> float:
        return server_time(os.path.dirname(self.path)) - holder.beat

    def _beat(self, ended: threading.Event) -> None:
        try:
            _keep_beating(self.path, self.token, ended)
        finally:
            self.is_lost = not ended.is_set()
            if self.is_lost:
                logger.error(
                    "%s is lost: another process trains there, since this one gave no sign of life "
                    "for %d seconds. End this one.",
                    *(self.path, DEAD_SECONDS),
                )

    def _remove_abandoned(self, taking: str) -> None:
        """Remove the file of a process that was killed while it took the heartbeat."""
        try:
            if server_time(os.path.dirname(taking)) - os.stat(taking).st_mtime > DEAD_SECONDS:
                os.remove(taking)
        except FileNotFoundError:  # the process has ended in the meantime
            return


def beat_with_parent() -> None:
    """Keep the heartbeat that `VARIABLE` names, until this process ends.

    A training that outlives the sweep that started it, which was killed, is thus not taken for
    dead by other machines.
    """
    if VARIABLE in os.environ:
        token, _, path = os.environ[VARIABLE].partition(":")
        arguments = path, token, threading.Event()
        threading.Thread(target=_keep_beating, args=arguments, daemon=True).start()


def _keep_beating(path: str, token: str, ended: threading.Event) -> None:
    """Touch a heartbeat file until `ended` is set or the file has another token."""
    while not ended.wait(BEAT_SECONDS):
        try:
            holder = read_holder(path)
            if holder is None or holder.token != token:
                return
            os.utime(path)
        except OSError as error:  # for instance, the server does not answer
            logger.warning("The heartbeat %s cannot be written: %s", path, error.strerror)


@functools.cache
def _kernel() -> str:
    """Return the identity of the running system: Linux's boot id, elsewhere the host's name."""
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    return boot_id.read_text().strip() if boot_id.exists() else socket.gethostname()
