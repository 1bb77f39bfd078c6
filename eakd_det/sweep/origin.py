"""Origin of a run: its config, its teacher's, and the weights that it learned from."""

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eakd_det.config.safe_yaml import read_yaml

_CHUNK = 1 << 20
MODEL_FILES = ("*.safetensors", "pytorch_model*.bin")  # of a language model's folder


def content_of(value: Any) -> str:
    """Hash a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def configs_of(files: Sequence[str], above: Sequence[str] = ()) -> str:
    """Hash config files, with their _BASE_ files and their teachers' configs.

    Comments do not count. A name of Detectron2's model zoo stands for itself.

    Args:
        above: files whose teachers these are; a base that they share may name one of them again.
    """
    said = []
    for file in files:
        config = _content(file) if os.path.isfile(file) and file not in above else {}
        below = config.get("TEACHER", {}).get("CONFIG_FILE", "")
        said.append([config or file, configs_of([below], [*above, file]) if below else ""])
    return content_of(said) if said else ""


def _content(file: str) -> dict[str, Any]:
    """Return the content of a YAML config, or the text of a Python config under its suffix."""
    return {".py": Path(file).read_text()} if file.endswith(".py") else read_yaml(file)


def weights_of(path: str) -> str:
    """Hash a checkpoint or the model files in a folder; empty where they are not on disk."""
    if not path:
        return ""
    if os.path.isfile(path):
        files = [Path(path)]
    else:
        files = sorted(file for pattern in MODEL_FILES for file in Path(path).glob(pattern))
    stats = [(str(file), file.stat()) for file in files]
    hashes = [_hash(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    return content_of(hashes) if hashes else ""


@functools.cache
def _hash(path: str, _size: int, _mtime: int) -> str:
    """Hash a file's bytes, which are read once a process as long as its size and time stay."""
    found = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def change(noted: dict[str, str], now: dict[str, str], teacher: str) -> str:
    """Describe the change of origin since a run was noted; empty if nothing changed.

    Args:
        noted, now: "fingerprint" of the config and the options, "teacher" (`configs_of`) and
            "teacher_weights" (`weights_of`). Entries that are empty or, from earlier versions,
            missing are not compared.
        teacher: name for the message, as "its teacher FILE".
    """

    if noted["fingerprint"] != now["fingerprint"]:
        return "another config or other options"
    known = [key for key in ("teacher_weights", "teacher") if noted.get(key) and now[key]]
    changed = [key for key in known if noted[key] != now[key]]
    if "teacher_weights" in changed:
        return f"{teacher} before it was trained anew"
    if changed and now["teacher_weights"]:
        return (
            f"another config of {teacher}, whose weights are still those from then: train it anew "
            "first, if they should be others"
        )
    return f"another config of {teacher}" if changed else ""
