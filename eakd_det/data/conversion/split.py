"""Division of a COCO dict into training and validation data."""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from eakd_det.utils.errors import UserError


def split_dataset(
    data: dict[str, Any],
    *,
    val_fraction: float,
    seed: int,
    group: Callable[[dict[str, Any]], str],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide a COCO dict into training and validation data, by groups of images.

    The result depends on the names of the groups and the seed, and not on the order of the images.

    Args:
        val_fraction: fraction of the images for the validation. Whole groups are taken as long as
            they fit into it, but at least the smallest one.
        seed: seed of the random order in which groups are taken.
        group: function that returns the name of the group of an image; see `make_grouping`.

    Returns:
        Training and validation data, with the same categories.

    Raises:
        UserError: the fraction is not between 0 and 1, or there are fewer than two groups.
    """
    if not 0 < val_fraction < 1:
        raise UserError(f"The validation fraction is {val_fraction}; it must be between 0 and 1.")
    groups = defaultdict(list)
    for image in data["images"]:
        groups[group(image)].append(image["id"])
    if len(groups) < 2:
        raise UserError(
            f"All {len(data['images'])} images belong to one group ({', '.join(groups)}), which "
            "cannot be divided: group them by another key (--group-by)."
        )
    order = sorted(groups, key=lambda name: _random(name, seed))
    free = min(round(val_fraction * len(data["images"])), len(data["images"]) - 1)
    taken: set[Any] = set()
    for name in order:
        if len(taken) + len(groups[name]) <= free:
            taken.update(groups[name])
    taken = taken or set(groups[min(order, key=lambda name: len(groups[name]))])
    return _part(data, lambda i: i not in taken), _part(data, lambda i: i in taken)


def make_grouping(key: str) -> Callable[[dict[str, Any]], str]:
    """Build the function that returns the name of an image's group.

    Args:
        key: "source": the picture of which the image is a tile, or the image itself; "folder": its
            folder; anything else: a regular expression, which is searched in the file name (of the
            picture). Its first group is the name, or the whole match if it has no group.

    Raises:
        UserError: the expression is invalid; the function raises it for a name without a match.
    """
    if key == "source":
        return source_of
    if key == "folder":
        return lambda image: os.path.dirname(source_of(image)) or "."
    try:
        pattern = re.compile(key)
    except re.error as error:
        raise UserError(f"--group-by {key!r} is no regular expression: {error}.") from error

    def group(image: dict[str, Any]) -> str:
        match = pattern.search(source_of(image))
        if match is None:
            raise UserError(f"--group-by {key!r} does not match the file {source_of(image)}.")
        return match[1] or "" if pattern.groups else match[0]

    return group


def source_of(image: dict[str, Any]) -> str:
    """Return the file name of the picture of which an image is a tile, or that of the image."""
    return str(image.get("source", image["file_name"]))


def missing_classes(train: dict[str, Any], val: dict[str, Any]) -> Iterator[str]:
    """Yield a sentence for each split without any object of a class that the other one has."""
    names = {category["id"]: category["name"] for category in train["categories"]}
    used = [{a["category_id"] for a in data["annotations"]} for data in (train, val)]
    for split, here, there in (("training", *used), ("validation", *reversed(used))):
        missing = [names[i] for i in sorted(there - here)]
        if missing:
            yield (
                f"no object in the {split} data of: {', '.join(missing)}. Another --seed or a "
                "larger fraction may change that."
            )


def _part(data: dict[str, Any], chosen: Callable[[Any], bool]) -> dict[str, Any]:
    return {
        **data,
        "images": [image for image in data["images"] if chosen(image["id"])],
        "annotations": [a for a in data["annotations"] if chosen(a["image_id"])],
    }


def _random(name: str, seed: int) -> tuple[bytes, str]:
    text = f"{seed}\n{name}".encode(errors="surrogateescape")
    return hashlib.blake2b(text, digest_size=8).digest(), name
