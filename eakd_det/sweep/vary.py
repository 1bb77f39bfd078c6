"""Levers: a key of the configs that a sweep varies, as the names of its methods have it.

"EA-KD EA.TEMPERATURE=2" is the method EA-KD with the lever EA.TEMPERATURE=2.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eakd_det.utils.errors import UserError

from .names import ALONE, MODES

_NAME = re.compile(r"(.+) ([A-Z][\w.]*=\S+)")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_FILE = re.compile(r"\.(pth|pkl|pt|ya?ml|jsonl?|csv|safetensors)$")
_UNSAFE = re.compile(r"[^\w.+-]+")  # not allowed in the names of some file system, or a space
_LONGEST = 60  # characters of a value's name
_OF_METHODS = re.compile(r"DISTILL\.(METHODS|EA\.ENABLED|\w+\.STANDARDIZE)")  # part of names
_INERT = {"DISTILL.EA.MODE": MODES, "DISTILL.EA.BOUND": ("teacher",)}  # on EA-X-<mode>


@dataclass(frozen=True)
class Lever:
    """A key and its values.

    Attributes:
        key: of the config.
        values: name in tables and folders, as "EA.TEMPERATURE=2" -> value.
    """

    key: str
    values: dict[str, str]

    @classmethod
    def parse(cls, words: Sequence[str], options: Sequence[str]) -> "Lever":
        """Parse KEY VALUE ...; without words the lever is empty and acts nowhere.

        Numbers become their shortest form, "1" of "1.0", so that each is one value in all sweeps.

        Args:
            words: of the command line.
            options: KEY VALUE pairs for every run.

        Raises:
            UserError: the key is also among the options, or part of the methods' names, or two
                values have one name.
        """
        if not words:
            return cls("", {})
        key, *given = words
        if key in options[::2]:
            raise UserError(f"--vary {key}: the key is also among the KEY VALUE pairs; drop one.")
        if _OF_METHODS.fullmatch(key):
            raise UserError(
                f"--vary {key}: the key changes the method, by which runs are named and compared. "
                "Name a config of each method with --configs instead."
            )
        values = list(dict.fromkeys(map(shortest, given)))
        names = [f"{short_key(key)}={name}" for name in _short_names(values)]
        if len({name.lower() for name in names}) < len(names):
            raise UserError(f"--vary {key}: the folders of two values would have one name.")
        return cls(key, dict(zip(names, values, strict=True)))

    def variants(self, method: str) -> Iterator[tuple[str, list[str]]]:
        """Return name and KEY VALUE pair of each value; ("", []) where the key cannot act.

        Args:
            method: of a config, as tables call it.
        """
        if self.key and acts(self.key, method):
            yield from ((name, [self.key, value]) for name, value in self.values.items())
        else:
            yield "", []


def acts(key: str, method: str) -> bool:
    """Return whether a key can change the runs of a method, as tables call it; True if unclear."""
    node, *rest = key.split(".")
    if method.startswith(ALONE):
        return node not in ("DISTILL", "TEACHER") or key == "DISTILL.CE_WEIGHT"
    if method.endswith(tuple(f"-{mode}" for mode in _INERT.get(key, ()))):
        return False
    if node != "DISTILL" or len(rest) < 2:
        return True
    return rest[0] in re.split(r"[-+]", method.upper())


def short_key(key: str) -> str:
    """Return the last two parts of a key, as "EA.TEMPERATURE"."""
    return ".".join(key.split(".")[-2:])


def split_method(method: str) -> tuple[str, str]:
    """Return a method's name without its lever, and the lever; empty without one."""
    found = _NAME.fullmatch(method)
    return (found[1], found[2]) if found else (method, "")


def same_lever(method: str, lever: str, key: str) -> str:
    """Return the name of a method with a lever, or without where its key cannot act on it."""
    return f"{method} {lever}" if acts(key, method) else method


def levers_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the levers of runs, and the key of each, from the KEY VALUE pairs of its runs.

    Args:
        rows: of `eakd_det.sweep.rows.collect`.
    """
    found = {}
    for row in rows:
        if lever := split_method(row["method"])[1]:
            keys = {short_key(key): key for key in row["options"][::2]}
            if key := keys.get(lever.partition("=")[0]):
                found[lever] = key
    return sort_levers(found)


def sort_levers(levers: Mapping[str, str]) -> dict[str, str]:
    """Sort levers of `levers_of` by `order`."""
    return dict(sorted(levers.items(), key=lambda item: order(item[0])))


def lever_of(key: str, value: str, others: Sequence[str]) -> str:
    """Return the lever of a value among other values of the key, as `Lever.parse` names it."""
    return f"{short_key(key)}={_short_names([value, *others])[0]}"


def with_levers(pair: tuple[str, str], levers: Mapping[str, str]) -> dict[tuple[str, str], None]:
    """Return a pair of methods that are compared, without and with each lever.

    Runs of different values are not compared, except in a pair that names them.

    Args:
        levers: of `levers_of`.
    """
    found = {pair: None}
    if not any(split_method(method)[1] for method in pair):
        for lever, key in levers.items():
            method, other = (same_lever(name, lever, key) for name in pair)
            found[method, other] = None
    return found


def order(lever: str) -> tuple:
    """Return a sort key of levers: numbers by size, words with numbers as "resnet8" likewise."""
    key, _, value = lever.partition("=")
    if (found := number(value)) is not None:
        return key, 0, found, ()
    parts = re.split(r"(\d+)", value)
    return key, 1, 0.0, tuple(int(x) if x.isdecimal() else x for x in parts)


def number(value: str) -> float | None:
    """Return a value or its name as a number; None of words, as "4_5", the name of (4, 5)."""
    return float(value) if _NUMBER.fullmatch(value) else None


def shortest(value: str) -> str:
    """Return a number in its shortest form, and words as they are."""
    found = number(value)
    return value if found is None else repr(found).removesuffix(".0")


def _short_names(values: Sequence[str]) -> list[str]:
    """Return names for folders: of paths as many of the last parts as distinguish them."""
    paths = [_FILE.sub("", value).split("/") for value in values]
    for count in range(1, max(map(len, paths)) + 1):
        names = ["-".join(path[-count:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return [_UNSAFE.sub("_", name).strip("_")[:_LONGEST] or "empty" for name in names]
