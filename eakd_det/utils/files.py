"""Atomic writing of files, and JSON files."""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

from .errors import UserError

# Temporary files, which are being written or were left by a killed process.
_TEMPORARY = re.compile(r".+\.[0-9a-f]{32}\.incomplete")

ABANDONED_SECONDS = 3600  # age of the last write from which a temporary file counts as abandoned


@contextmanager
def write_atomically(path: str, mode: str = "w") -> Iterator[Any]:
    """Open a temporary file for writing, which is renamed to `path` when it is complete on disk.

    Several processes can write the same path: the last one to finish wins. Temporary files of
    killed writers are removed from the folder `ABANDONED_SECONDS` after their last write.
    """
    _remove_abandoned(os.path.dirname(path) or ".")
    temporary = f"{path}.{uuid4().hex}.incomplete"
    try:
        with open(temporary, mode) as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def make_folder(path: str) -> None:
    """Create a folder unless it exists.

    Raises:
        UserError: the system refuses it.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder {path} cannot be made: {error.strerror}.") from error


def write_json(path: str | Path, value: Any, indent: int | None = 2) -> None:
    """Write a JSON file atomically, in ASCII; its folder is created if missing."""
    make_folder(os.path.dirname(path) or ".")
    with write_atomically(str(path)) as f:
        json.dump(value, f, indent=indent)


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON file; empty if it does not exist.

    Raises:
        UserError: it is broken.
    """
    if not os.path.exists(path):
        return {}
    try:
        return json.loads(Path(path).read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is broken: {error}.") from error


def _remove_abandoned(folder: str) -> None:
    with os.scandir(folder) as entries:
        found = [entry.path for entry in entries if _TEMPORARY.fullmatch(entry.name)]
    for path in found:
        with suppress(FileNotFoundError):  # renamed meanwhile, or removed by another process
            if time.time() - os.stat(path).st_mtime > ABANDONED_SECONDS:
                os.remove(path)


def unused_path(path: str) -> str:
    """Return the path with the lowest number before its suffix that nothing has."""
    stem, ending = os.path.splitext(path)
    candidates = (f"{stem}_earlier{number}{ending}" for number in count(1))
    return next(candidate for candidate in candidates if not os.path.exists(candidate))
