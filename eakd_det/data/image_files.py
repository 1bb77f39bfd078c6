"""Looks at image files before they are trained on, and not twice at one that has not changed."""

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import portalocker
from PIL import ExifTags, Image
from tqdm import tqdm

from eakd_det.utils.files import write_atomically

RULES = 1  # of what is sound; where they change, all files are looked at anew
DAY = 24 * 3600  # seconds, for which a process waits for the one that looks at the same files
WIDE = ("I", "F")  # begin Pillow's modes of 16 and 32 bits
CHUNK = 1000  # files that a thread takes at a time
SOUND = np.dtype(
    [("stamp", np.uint64), ("width", np.uint32), ("height", np.uint32), ("orientation", np.uint8)]
)

logger = logging.getLogger(__name__)


class ImageFile(NamedTuple):
    """The stored size of an image file in pixels and its EXIF orientation, or a fault."""

    width: int = 0
    height: int = 0
    orientation: int = 1
    fault: str = ""


def look_at_files(paths: Sequence[str], *, again: bool = False) -> list[ImageFile]:
    """Look at image files as `look_at_file`, in threads, with a bar of the progress.

    Those that were found sound and have the same path, size and time of change since are not
    opened again. Processes that look at the same folder do so one after another.

    Args:
        again: look at all.
    """
    if not paths:
        return []
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    cache = os.path.join(cache_folder(), f"images-{_digest(folder)}.npy")
    try:
        os.makedirs(cache_folder(), exist_ok=True)
        lock = portalocker.Lock(f"{cache}.lock", timeout=DAY)
        lock.acquire()
    except (OSError, portalocker.LockException) as error:
        logger.warning(
            "%s cannot be written (%s): the images are looked at again at every start. "
            "XDG_CACHE_HOME names another folder.",
            *(cache_folder(), error),
        )
        return _look(paths)
    try:
        return _look_at_changed(paths, cache, again)
    finally:
        lock.release()


def look_at_file(path: str) -> ImageFile:
    """Open and decode an image file; a fault also where 8 bits a channel do not hold its values."""
    if not os.path.isfile(path):
        return ImageFile(fault=f"no file {path}")
    try:
        with Image.open(path) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            width, height = image.size
            image.draft("L", (1, 1))  # a JPEG is decoded at an eighth: enough to find it cut off
            image.load()
            fault = _range_fault(image)
    except Exception as error:  # of a broken image, almost any
        return ImageFile(fault=f"{path} cannot be read: {error}")
    return ImageFile(width, height, orientation, f"{path} {fault}" if fault else "")


def cache_folder() -> str:
    """Folder of the cache of sound image files: $XDG_CACHE_HOME/eakd_det or ~/.cache/eakd_det."""
    return os.path.join(os.getenv("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "eakd_det")


def has_wide_values(path: str) -> bool:
    """Whether a file's pixels have 16 or 32 bits a channel, by its header."""
    with Image.open(path) as image:
        return image.mode.startswith(WIDE)


def _range_fault(image: Image.Image) -> str:
    """Pillow clips other values than 0 to 255 where it makes RGB of them, and cuts off decimals."""
    if not image.mode.startswith(WIDE):
        return ""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if low >= 0 and high <= 255 and not (image.mode == "F" and 0 < high <= 1):
        return ""
    return (
        f"has values from {low:g} to {high:g} (mode {image.mode}), and images are read as 0 to "
        "255: save it with 8 bits a channel, scaled from the range that means something"
    )


def _look_at_changed(paths: Sequence[str], cache: str, again: bool) -> list[ImageFile]:
    known = np.empty(0, SOUND)
    if os.path.isfile(cache) and not again:
        known = np.load(cache, allow_pickle=False)
    stamps = _in_threads(_stamp, paths)
    places = {stamp: place for place, stamp in enumerate(known["stamp"].tolist())}
    files = [
        ImageFile(*known[places[stamp]].tolist()[1:]) if stamp in places else None
        for stamp in stamps
    ]
    changed = [i for i, file in enumerate(files) if file is None]
    for i, file in zip(changed, _look([paths[i] for i in changed]), strict=True):
        files[i] = file
    sound = [(stamps[i], *files[i][:3]) for i in changed if not files[i].fault]
    if sound:
        with write_atomically(cache, "wb") as f:
            np.save(f, np.concatenate([known, np.array(sound, SOUND)]))
    return files


def _look(paths: Sequence[str]) -> list[ImageFile]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = pool.map(look_at_file, paths)
        return list(tqdm(looks, "checking images", len(paths), delay=2, leave=False))


def _in_threads(function, paths: Sequence[str]) -> list:
    def of(start: int) -> list:
        return [function(path) for path in paths[start : start + CHUNK]]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [x for part in pool.map(of, range(0, len(paths), CHUNK)) for x in part]


def _stamp(path: str) -> int:
    """Hash of path, size and time of change; 0 if there is no file."""
    path = os.path.abspath(path)
    try:
        status = os.stat(path)
    except OSError:  # the look at it tells
        return 0
    return int(_digest(f"{path}\n{status.st_size}\n{status.st_mtime_ns}"), 16)


def _digest(text: str) -> str:
    """16 hexadecimal digits."""
    text = f"{RULES}\n{text}"
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).hexdigest()
