"""Count of the operations for which the host waits on a GPU; also on a CPU."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# The size of the result, or the result itself, is read back.
OPERATORS = {
    aten._local_scalar_dense,
    aten.equal,
    aten.is_nonzero,
    aten.masked_select,
    aten.nonzero,
    aten.unique_consecutive,
    aten.unique_dim,
    aten._unique2,
}
# Reads that no operator shows on a CPU, and tensors made of numbers or for another device.
METHODS = {"cpu", "numpy", "tolist", "new_tensor"}
FUNCTIONS = {torch.as_tensor, torch.from_numpy, torch.tensor}


class _Operators(TorchDispatchMode):
    def __init__(self, seen: Counter):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.overloadpacket
        if name in OPERATORS or _has_unknown_size(name, args, kwargs):
            self.seen[name.__name__] += 1
        return function(*args, **kwargs)


def _has_unknown_size(name, args, kwargs) -> bool:
    """Return whether an operator counts the samples that a mask, or a tensor of counts, selects."""
    if name is aten.repeat_interleave:
        return kwargs.get("output_size") is None
    if name not in (aten.index, aten.index_put, aten.index_put_):
        return False
    is_filled = name is not aten.index and args[2].numel() == 1  # where the mask is, in place
    is_mask = any(index is not None and index.dtype == torch.bool for index in args[1])
    return is_mask and not is_filled


class _Functions(TorchFunctionMode):
    def __init__(self, seen: Counter):
        super().__init__()
        self.seen = seen

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in FUNCTIONS or function.__name__ in METHODS:
            self.seen[function.__name__] += 1
        return function(*args, **(kwargs or {}))


@contextmanager
def synchronisations() -> Iterator[Counter]:
    """Count, by name, the operations for which the host would wait, or might, on a GPU.

    Tensors that are on the CPU whatever the device are counted, too.
    """
    seen = Counter()
    with _Operators(seen), _Functions(seen):
        yield seen
