"""Files that are written whole or not at all."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

# A file that is being written, or that a killed process has left.
_ASIDE = re.compile(r".+\.[0-9a-f]{32}\.incomplete")


ABANDONED_SECONDS = 3600  # without a write, after which nobody writes it any more


@contextmanager
def write_atomically(path: str, mode: str = "w") -> Iterator[Any]:
    """Open a local file for writing aside; it takes the name `path` once it is on disk whole.

    Several writers of one path do not meet: the last one to end is the one that stays. What killed
    writers have left in the folder is removed, `ABANDONED_SECONDS` after their last write.
    """
    _remove_abandoned(os.path.dirname(path) or ".")
    aside = f"{path}.{uuid4().hex}.incomplete"
    try:
        with open(aside, mode) as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(aside, path)
    finally:
        if os.path.exists(aside):
            os.remove(aside)


def _remove_abandoned(folder: str) -> None:
    with os.scandir(folder) as entries:
        found = [entry.path for entry in entries if _ASIDE.fullmatch(entry.name)]
    for path in found:
        with suppress(FileNotFoundError):  # complete by now, or removed by another process
            if time.time() - os.stat(path).st_mtime > ABANDONED_SECONDS:
                os.remove(path)
