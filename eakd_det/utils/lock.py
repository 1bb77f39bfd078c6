"""Lock of a run's folder, in which one run at a time may train."""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from detectron2.utils import comm

from .heartbeat import Heartbeat, read_holder

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
RUNNING = "running.json"  # name, or end of the name, of a heartbeat


class Lock:
    """Lock of a training, held from `acquire` to `release` or to the end of a with-block.

    It consists of the system's lock of a file, which lasts until the process that locked it, and
    all children that inherited the file, have ended for whatever reason; and of a heartbeat, for
    the machines that do not see that lock. Without locks in the file system the heartbeat is alone.

    Attributes:
        path: file that is locked; it is not removed.
        file: the locked file, for children to inherit.
        heartbeat: file beside it, which is removed at the end.
    """

    def __init__(self, path: str, heartbeat: str):
        self.path = path
        self.file: TextIO | None = None
        self.heartbeat = Heartbeat(heartbeat)
        self._is_logged = False

    @classmethod
    def of_folder(cls, folder: str) -> "Lock":
        """Return the lock of a run's folder: FOLDER.lock beside it, and FOLDER.running.json."""
        folder = os.path.normpath(folder)
        return cls(f"{folder}.lock", f"{folder}.{RUNNING}")

    def acquire(self) -> bool:
        """Take the lock; return False if another process holds it."""
        file, is_locked = self._open()
        # A file server may keep the locks of a machine that has died.
        is_free = is_locked is not False or self.heartbeat.is_dead()
        if is_free and self.heartbeat.acquire(is_alone=is_locked is True):
            self.file = file
            return True
        file.close()
        return False

    def release(self) -> None:
        """Close the file without unlocking it: a child that is still running keeps the lock."""
        if self.file is not None:
            self.heartbeat.release()
            self.file.close()
            self.file = None

    def is_held(self) -> bool:
        """Return whether another process holds the lock."""
        file, is_locked = self._open()
        with file:
            if is_locked is False and not self.heartbeat.is_dead():
                return True
            return self.heartbeat.is_held(is_alone=is_locked is True)

    def holder(self) -> str:
        """Describe the process that holds the lock."""
        return str(read_holder(self.heartbeat.path) or "another process")

    def log_waiting(self, folder: str) -> None:
        """Log once that the lock of a folder is waited for."""
        if not self._is_logged:
            logger.warning("Another process trains %s: waiting until it ends", folder)
        self._is_logged = True

    def _open(self) -> tuple[TextIO, bool | None]:
        """Open the file, and lock it by the system.

        Returns:
            The open file; and True if it is locked, False if another process has locked it, None
            if the file system has no locks.
        """
        os.makedirs(os.path.dirname(os.path.abspath(self.path)), exist_ok=True)
        file = open(self.path, "a")  # noqa: SIM115  (stays open)
        try:
            return file, lock_file(file)
        except OSError as error:
            logger.info("%s has no lock (%s), a heartbeat alone", self.path, error.strerror)
            return file, None

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@contextmanager
def run_lock(folder: str) -> Iterator[Lock]:
    """Hold the lock of a folder in the with-block; wait while another process holds it.

    The processes of a distributed run hold it together.

    Args:
        folder: folder of a run.

    Yields:
        The lock, which the main process holds.
    """
    lock = Lock.of_folder(folder)
    is_main = comm.is_main_process()
    with lock:
        while not comm.all_gather(not is_main or lock.acquire())[0]:
            if is_main:
                lock.log_waiting(folder)
            time.sleep(POLL_SECONDS)
        yield lock


def lock_file(file: TextIO) -> bool:
    """Lock an open file until it is closed; return False if another process holds its lock.

    Raises:
        OSError: the file system does not support locks.
    """
    if sys.platform == "win32":
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
    else:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
