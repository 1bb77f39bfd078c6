"""Folder of a converted dataset, and its removal with --overwrite."""

import os
import shutil
from pathlib import Path
from typing import Any

from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_json

TILES = "tiles"  # folder of images
WRITTEN = ("train.json", "val.json", "test.json", TILES)
DESCRIPTION = "conversion.json"  # written first: the options of the conversion


def check_output(folder: str, source: str, images: str | None, *, overwrite: bool) -> None:
    """Raise if a conversion must not write to a folder.

    Args:
        source, images: files and folders that are read.

    Raises:
        UserError: the folder holds other files, or a conversion and `overwrite` is not set, or it
            lies in the source, or the source or the images in it.
    """
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise UserError(f"OUT {folder} is a file; it must be a new folder.")
    out = Path(folder).resolve()
    read = [Path(path).resolve() for path in (source, images) if path]
    if out in read or any(out in path.parents for path in read) or read[0] in out.parents:
        raise UserError(
            f"OUT {folder} must lie outside of {source}, and the source outside of OUT: nothing is "
            "written to the source."
        )
    if os.path.exists(os.path.join(folder, DESCRIPTION)):
        if not overwrite:
            raise UserError(f"OUT {folder} holds a conversion: --overwrite replaces it.")
    elif os.path.isdir(folder) and os.listdir(folder):
        raise UserError(f"OUT {folder} holds other files: choose an empty or new folder.")


def start_output(folder: str, description: dict[str, Any]) -> None:
    """Remove an earlier conversion from a folder, and write the options of the new one."""
    for name in WRITTEN if os.path.exists(os.path.join(folder, DESCRIPTION)) else ():
        path = os.path.join(folder, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.remove(path)
    write_json(os.path.join(folder, DESCRIPTION), description)
