"""Image files whose names in a COCO file are not their paths below the folder of the images."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from .image_files import in_threads

# Absolute paths, also of Windows, URLs, and paths that leave their folder.
_ELSEWHERE = re.compile(r"^(/|[A-Za-z]:/|\w+://|(.*/)?\.\./)|\?d=")


def correct_file_names(images: list[dict[str, Any]], image_root: str) -> Iterator[str]:
    """Replace file names under which no file exists by those of the files that are meant.

    Other separators, URL encoding, and composed or decomposed accents (macOS) are tried, and the
    parts of paths on another computer; of a relative path only the part below a folder with the
    name of `image_root`. A file that several names would share belongs to none of them.

    Yields:
        Sentences about other changes than slashes, and about files that are listed repeatedly.
    """
    names = [image["file_name"] for image in images]
    exist = in_threads(os.path.isfile, [os.path.join(image_root, name) for name in names])
    lost = [image for image, is_file in zip(images, exist, strict=True) if not is_file]
    found = {image["file_name"]: _find(image["file_name"], image_root) for image in lost}
    claims = Counter(found.get(name, name) for name in set(names))
    changed = []
    for image in lost:
        old, new = image["file_name"], found[image["file_name"]]
        if new and claims[new] == 1:
            image["file_name"] = new
            changed += [(old, new)] if new != old.replace("\\", "/") else []
    if changed:
        old, new = changed[0]
        yield (
            f"{len(changed)} of {len(images)} images are found under another name than in the "
            f"JSON, as {old!r} under {new!r}."
        )
    repeated = sum(n - 1 for n in Counter(image["file_name"] for image in images).values())
    if repeated:
        yield (
            f"{repeated} of {len(images)} images are files that are listed already, as Label "
            "Studio lists a file for each of its annotators: each entry is an image of its own."
        )


def _find(name: str, image_root: str) -> str:
    """Return the first spelling of a name under which a file exists; empty if there is none."""
    folder = os.path.basename(os.path.abspath(image_root))
    spellings = (
        unicodedata.normalize(form, path)
        for path in _paths(name, folder)
        for form in ("NFC", "NFD")
        if path
    )
    return next((s for s in spellings if os.path.isfile(os.path.join(image_root, s))), "")


def _paths(name: str, folder: str) -> Iterator[str]:
    slashed = name.replace("\\", "/")
    decoded = unquote(slashed).replace("\\", "/")
    yield from (slashed, decoded)
    local = decoded.rpartition("?d=")[2]  # of Label Studio's local storage
    parts = [part for part in local.split("/") if part not in ("", ".", "..")]
    if _ELSEWHERE.search(decoded):
        yield from ("/".join(parts[i:]) for i in range(len(parts)))
    elif folder in parts[:-1]:
        yield "/".join(parts[parts.index(folder) + 1 :])
