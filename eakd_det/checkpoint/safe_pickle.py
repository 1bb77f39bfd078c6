"""Pickles and .pth files of numbers in plain containers, read without running what they name."""

import argparse
import pickle
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2.utils.file_io import PathManager

from eakd_det.utils.errors import UserError

# The command line of a training code, as checkpoints of released classifiers keep it: a container
# that runs nothing.
_CONTAINERS = [argparse.Namespace]


def load_pickle(filename: str) -> dict[str, Any]:
    """Read a .pkl of arrays in dicts, lists and tuples.

    Raises:
        UserError: the file is broken, or holds anything else, which could run code; nothing of it
            is run.
    """
    with PathManager.open(filename, "rb") as f, _in_words(filename):
        return _dict(_ArrayUnpickler(f, encoding="latin1").load())


def load_pth(filename: str) -> dict[str, Any]:
    """Read what torch.save wrote, tensors onto the CPU; raises as `load_pickle`."""
    with PathManager.open(filename, "rb") as f, _in_words(filename), _containers_admitted():
        return _dict(torch.load(f, map_location="cpu", weights_only=True))


def _dict(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise TypeError(f"{type(data).__name__} in place of a dict")
    return data


@contextmanager
def _containers_admitted() -> Iterator[None]:
    """Let torch.load read _CONTAINERS; afterwards the process's list is as others have it.

    torch.serialization.safe_globals would take away what a user has added of the same classes.
    """
    added = [c for c in _CONTAINERS if c not in torch.serialization.get_safe_globals()]
    torch.serialization.add_safe_globals(added)
    try:
        yield
    finally:
        kept = [c for c in torch.serialization.get_safe_globals() if c not in added]
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(kept)


@contextmanager
def _in_words(filename: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of a broken pickle, almost any
        refused = re.search(r"GLOBAL (\S+)", str(error))  # PyTorch's words, and ours below
        if refused:
            fault = (
                f"holds {refused[1]}: nothing but tensors, arrays and plain containers is loaded, "
                "since it could run code."
            )
        else:
            fault = "is no checkpoint of tensors or arrays, or is empty or cut off."
        raise UserError(f"{filename} {fault}") from error


class _DType:
    """Stands for np.dtype while a pickle is read, for numbers alone.

    NumPy's own believes the flags that a pickle gives it, and forged ones crash the process.
    """

    def __init__(self, kind: str, align: bool = False, copy: bool = False):
        self.dtype = np.dtype(kind)
        if self.dtype.kind not in "biufc":
            raise pickle.UnpicklingError(f"GLOBAL numpy.dtype({kind!r})")

    def __setstate__(self, state: tuple):
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An ndarray whose pickled state has a _DType."""

    def __setstate__(self, state: tuple):
        version, shape, dtype, is_fortran, data = state
        super().__setstate__((version, shape, dtype.dtype, is_fortran, data))


# The functions by which NumPy rebuilds its pickles; asked of NumPy, since it moves them.
_frombuffer = np.empty(1).__reduce_ex__(5)[0]
_scalar = np.float32(0).__reduce__()[0]
_NUMPY_BUILDERS = {
    "_reconstruct": lambda *_: _Array(0, np.int8),
    "_frombuffer": lambda buffer, dtype, *rest: _frombuffer(buffer, dtype.dtype, *rest),
    "scalar": lambda dtype, data: _scalar(dtype.dtype, data),
}
_PLAIN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): None,  # an argument of _reconstruct
    # The bytes of an array in a pickle of protocol 2, written by Python 3.
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),
    ("__builtin__", "bytes"): bytes,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Admits NumPy arrays and plain containers alone."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith(("numpy.core.", "numpy._core.")) and name in _NUMPY_BUILDERS:
            return _NUMPY_BUILDERS[name]
        if (module, name) in _PLAIN:
            return _PLAIN[module, name]
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
