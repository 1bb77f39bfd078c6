"""Count of the reads of device values, which make the host wait; also on a CPU."""

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

METHODS = ("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__")


class _Methods(TorchFunctionMode):
    """Notes the methods of tensors that read; some of them no operator shows on a CPU."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function.__name__ in METHODS:
            self.seen.append(function.__name__)
        return function(*args, **(kwargs or {}))


class Operators(TorchDispatchMode):
    """Notes the calls of some operators, also those within others and in backward passes."""

    def __init__(self, *operators, seen=None):
        super().__init__()
        self.operators, self.seen = operators, [] if seen is None else seen

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in self.operators:
            self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


@contextmanager
def reads():
    """The names of the methods and operators that read a value back within the block."""
    seen = []
    with Operators(torch.ops.aten._local_scalar_dense, seen=seen), _Methods(seen):
        yield seen
