"""Lock of a run's folder, in which one run at a time may train."""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from detectron2.utils import comm

from .errors import UserError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5


class Lock:
    """Lock of a training, held from `acquire` to `release` or to the end of a with-block.

    The system releases it when the process that locked it, and all children that inherited the
    file, have ended for whatever reason.

    Attributes:
        path: file that is locked; it is not removed.
        file: the locked file, for children to inherit.
    """

    def __init__(self, path: str):
        self.path = path
        self.file: TextIO | None = None
        self._is_logged = False

    @classmethod
    def of_folder(cls, folder: str) -> "Lock":
        """Return the lock of a run's folder, the file FOLDER.lock beside it."""
        return cls(f"{os.path.normpath(folder)}.lock")

    def acquire(self) -> bool:
        """Lock the file; return False if another process holds the lock.

        Raises:
            UserError: the file system does not support locks.
        """
        os.makedirs(os.path.dirname(os.path.abspath(self.path)), exist_ok=True)
        file = open(self.path, "a")  # noqa: SIM115  (stays open)
        if _acquire(file):
            self.file = file
            return True
        file.close()
        return False

    def release(self) -> None:
        """Close the file without unlocking it: a child that is still running keeps the lock."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def holder(self) -> str:
        """Describe the process that holds the lock."""
        return "another process"

    def is_held(self) -> bool:
        """Return whether a process holds the lock."""
        if self.acquire():
            self.release()
            return False
        return True

    def log_waiting(self, folder: str) -> None:
        """Log once that the lock of a folder is waited for."""
        if not self._is_logged:
            logger.warning("Another process trains %s: waiting until it ends", folder)
        self._is_logged = True

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@contextmanager
def run_lock(folder: str) -> Iterator[None]:
    """Hold the lock of a folder in the with-block; wait while another process holds it.

    The processes of a distributed run hold it together.

    Args:
        folder: folder of a run.

    Raises:
        UserError: the file system does not support locks.
    """
    lock = Lock.of_folder(folder)
    is_main = comm.is_main_process()
    with lock:
        while not comm.all_gather(not is_main or lock.acquire())[0]:
            if is_main:
                lock.log_waiting(folder)
            time.sleep(POLL_SECONDS)
        yield


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


def _acquire(file: TextIO) -> bool:
    try:
        return lock_file(file)
    except OSError as error:
        raise UserError(
            f"{file.name} cannot be locked ({error.strerror}): train the run beside it first, with "
            "its own config and in a single process."
        ) from error
