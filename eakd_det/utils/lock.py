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


@contextmanager
def run_lock(folder: str) -> Iterator[TextIO | None]:
    """Hold the lock of a folder in the with-block; wait while another process holds it.

    The processes of a distributed run hold it together. The system releases it when the process
    that locked it, and all children that inherited the file, have ended for whatever reason.

    Args:
        folder: folder of a run; the lock is the file FOLDER.lock beside it, which is not removed.

    Yields:
        The locked file in the main process, for children to inherit; None in the others.

    Raises:
        UserError: the file system does not support locks.
    """
    path = f"{os.path.normpath(folder)}.lock"
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    file = open(path, "a") if comm.is_main_process() else None  # noqa: SIM115  (closed below)
    try:
        is_logged = False
        while not comm.all_gather(file is None or _acquire(file))[0]:
            if file is not None and not is_logged:
                logger.warning("Another process trains %s: waiting until it ends", folder)
                is_logged = True
            time.sleep(POLL_SECONDS)
        yield file
    finally:
        if file is not None:
            file.close()  # without unlocking: a child that is still running keeps the lock


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
