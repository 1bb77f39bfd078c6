"""The lock of a run's folder, which one process at a time trains in."""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from detectron2.utils import comm

from .errors import UserError

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5


@contextmanager
def run_lock(folder: str) -> Iterator[TextIO | None]:
    """Hold the lock of a folder while the with-block lasts; wait as long as another process has it.

    The processes of a distributed run have it together. The system frees it when its holder ends,
    however that is, and those that were given the file.

    Args:
        folder: of a run; the lock is the file FOLDER.lock beside it, which stays.

    Yields:
        The locked file in the main process, for a child to be given; None in the others.

    Raises:
        UserError: the file system has no locks.
    """
    path = f"{os.path.normpath(folder)}.lock"
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    file = open(path, "a") if comm.is_main_process() else None  # noqa: SIM115  (closed below)
    try:
        is_told = False
        while not comm.all_gather(file is None or _acquire(file))[0]:
            if file is not None and not is_told:
                logger.warning("Another process trains %s: waiting until it ends", folder)
                is_told = True
            time.sleep(POLL_SECONDS)
        yield file
    finally:
        if file is not None:
            file.close()  # and not unlocked: a child that goes on keeps the lock


def _acquire(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(
            f"{file.name} cannot be locked ({error.strerror}): train what lies beside it by its "
            "own config first, and in one process alone."
        ) from error
    return True
