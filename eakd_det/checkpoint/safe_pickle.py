"""Loading of pickles and .pth files with arrays in plain containers, without running code."""

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

# Checkpoints of released classifiers hold the parsed command line of their training: a plain
# container that runs no code.
_CONTAINERS = [argparse.Namespace]


def load_pickle(filename: str) -> dict[str, Any]:
    """Load a .pkl of arrays in dicts, lists and tuples.

    Raises:
        UserError: the file is broken, or holds other objects, which could run code; no code of it
            is run.
    """
    with PathManager.open(filename, "rb") as f, _convert_errors(filename):
        return _check_dict(_ArrayUnpickler(f, encoding="latin1").load())


def load_pth(filename: str) -> dict[str, Any]:
    """Load a file of torch.save with its tensors on the CPU; raises as `load_pickle` does."""
    with PathManager.open(filename, "rb") as f, _convert_errors(filename), _allow_containers():
        return _check_dict(torch.load(f, map_location="cpu", weights_only=True))


def _check_dict(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise TypeError(f"{type(data).__name__} in place of a dict")
    return data


@contextmanager
def _allow_containers() -> Iterator[None]:
    """Let torch.load read _CONTAINERS in the with-block, and restore its list of classes after it.

    torch.serialization.safe_globals would also remove these classes if the user had added them.
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
def _convert_errors(filename: str) -> Iterator[None]:
    """Convert errors of the with-block, which loads `filename`, into UserError."""
    try:
        yield
    except Exception as error:  # a broken pickle can raise almost any
        refused = re.search(r"GLOBAL (\S+)", str(error))  # in PyTorch's messages and ours below
        if refused:
            problem = (
                f"holds {refused[1]}: only tensors, arrays and plain containers are loaded, since "
                "other objects could run code."
            )
        else:
            problem = "is not a checkpoint of tensors or arrays, or is empty or truncated."
        raise UserError(f"{filename} {problem}") from error


class _DType:
    """Replacement of np.dtype in a pickle that allows only numbers.

    NumPy's own trusts the flags in the pickle, and forged flags crash the process.
    """

    def __init__(self, kind: str, align: bool = False, copy: bool = False):
        self.dtype = np.dtype(kind)
        if self.dtype.kind not in "biufc":
            raise pickle.UnpicklingError(f"GLOBAL numpy.dtype({kind!r})")

    def __setstate__(self, state: tuple):
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """ndarray that restores a pickled state with a _DType."""

    def __setstate__(self, state: tuple):
        version, shape, dtype, is_fortran, data = state
        super().__setstate__((version, shape, dtype.dtype, is_fortran, data))


# Functions with which NumPy rebuilds its pickles. Their modules differ between NumPy's versions.
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
    """Unpickler that allows only NumPy arrays and plain containers."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith(("numpy.core.", "numpy._core.")) and name in _NUMPY_BUILDERS:
            return _NUMPY_BUILDERS[name]
        if (module, name) in _PLAIN:
            return _PLAIN[module, name]
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
