"""Check of image files before training, with a cache of those that have not changed."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import portalocker
from PIL import ExifTags, Image
from tqdm import tqdm

from eakd_det.utils.files import write_atomically

RULES = 2  # version of the checks; a new one makes all files be checked again
DAY = 24 * 3600  # seconds for which a process waits for another one that checks the same files
WIDE = ("I", "F")  # first letters of Pillow's modes with 16 and 32 bits
CHUNK = 1000  # files per task of a thread
SOUND = np.dtype(
    [
        ("stamp", np.uint64),
        ("width", np.uint32),
        ("height", np.uint32),
        ("orientation", np.uint8),
        ("fingerprint", np.uint64),
    ]
)

T = TypeVar("T")

logger = logging.getLogger(__name__)


class ImageFile(NamedTuple):
    """Result of the check of an image file.

    Attributes:
        width, height: stored size in pixels.
        orientation: of EXIF.
        fingerprint: 64 bits that are much the same for images that look the same; see `_dhash`.
        problem: reason why the file cannot be used, empty if it can.
    """

    width: int = 0
    height: int = 0
    orientation: int = 1
    fingerprint: int = 0
    problem: str = ""


def check_image_files(paths: Sequence[str], *, again: bool = False) -> list[ImageFile]:
    """Check image files with `check_image_file`, in threads, with a progress bar.

    Files without a problem whose path, size and modification time have not changed are not opened
    again. Processes that check the same folder wait for each other.

    Args:
        again: check all files.
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
            "%s cannot be written (%s): the images are checked again at every start. "
            "Set XDG_CACHE_HOME to another folder.",
            *(cache_folder(), error),
        )
        return _check_all(paths)
    try:
        return _check_changed(paths, cache, again)
    finally:
        lock.release()


def check_image_file(path: str) -> ImageFile:
    """Open and decode an image file, whose values must fit into 8 bits a channel."""
    if not os.path.isfile(path):
        return ImageFile(problem=f"no file {path}")
    try:
        with Image.open(path) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            width, height = image.size
            image.draft("L", (1, 1))  # decode a JPEG at 1/8 size, enough to find it truncated
            image.load()
            problem = _range_problem(image)
            fingerprint = _dhash(image)
    except Exception as error:  # a broken image can raise almost any
        return ImageFile(problem=f"{path} cannot be read: {error}")
    text = f"{path} {problem}" if problem else ""
    return ImageFile(width, height, orientation, fingerprint, text)


def cache_folder() -> str:
    """Folder of the cache of checked image files: $XDG_CACHE_HOME/eakd_det or ~/.cache/eakd_det."""
    return os.path.join(os.getenv("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "eakd_det")


def has_wide_values(path: str) -> bool:
    """Return True if an image file's header gives 16 or 32 bits a channel."""
    with Image.open(path) as image:
        return image.mode.startswith(WIDE)


def _dhash(image: Image.Image) -> int:
    """Difference hash: in a reduction to 9 x 8 gray pixels, is each one brighter than the next?"""
    pixels = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX))
    return int.from_bytes(np.packbits(pixels[:, :-1] > pixels[:, 1:]).tobytes(), "big")


def _range_problem(image: Image.Image) -> str:
    """Return why Pillow's conversion to RGB, which clips and truncates, would change the values."""
    if not image.mode.startswith(WIDE):
        return ""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if low >= 0 and high <= 255 and not (image.mode == "F" and 0 < high <= 1):
        return ""
    return (
        f"has values from {low:g} to {high:g} (mode {image.mode}), and images are read as 0 to "
        "255: save it with 8 bits a channel, scaled from the range of interest"
    )


def _check_changed(paths: Sequence[str], cache: str, again: bool) -> list[ImageFile]:
    known = np.empty(0, SOUND)
    if os.path.isfile(cache) and not again:
        known = np.load(cache, allow_pickle=False)
    stamps = in_threads(_stamp, paths)
    places = {stamp: place for place, stamp in enumerate(known["stamp"].tolist())}
    files = [
        ImageFile(*known[places[stamp]].tolist()[1:]) if stamp in places else None
        for stamp in stamps
    ]
    changed = [i for i, file in enumerate(files) if file is None]
    for i, file in zip(changed, _check_all([paths[i] for i in changed]), strict=True):
        files[i] = file
    sound = [(stamps[i], *files[i][:4]) for i in changed if not files[i].problem]
    if sound:
        with write_atomically(cache, "wb") as f:
            np.save(f, np.concatenate([known, np.array(sound, SOUND)]))
    return files


def _check_all(paths: Sequence[str]) -> list[ImageFile]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        files = pool.map(check_image_file, paths)
        return list(tqdm(files, "checking images", len(paths), delay=2, leave=False))


def in_threads(function: Callable[[str], T], paths: Sequence[str]) -> list[T]:
    """Call a function, which waits for a disk, with each path."""

    def run_chunk(start: int) -> list[T]:
        return [function(path) for path in paths[start : start + CHUNK]]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [x for chunk in pool.map(run_chunk, range(0, len(paths), CHUNK)) for x in chunk]


def _stamp(path: str) -> int:
    """Hash of path, size and modification time; 0 if there is no file."""
    path = os.path.abspath(path)
    try:
        status = os.stat(path)
    except OSError:  # `check_image_file` reports it
        return 0
    return int(_digest(f"{path}\n{status.st_size}\n{status.st_mtime_ns}"), 16)


def _digest(text: str) -> str:
    """Hash of a text and RULES, 16 hexadecimal digits."""
    text = f"{RULES}\n{text}"
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).hexdigest()
