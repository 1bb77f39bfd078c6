"""Recording of the calls of modules and methods."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any, NamedTuple

from torch import nn


class Call(NamedTuple):
    """Positional arguments and output of a call."""

    args: tuple
    output: Any


@contextmanager
def record(**sources: nn.Module | Callable) -> Iterator[dict[str, list[Call]]]:
    """Record every call of the given modules and bound methods in the with-block.

    The outputs stay in the autograd graph, so a loss on them trains the module. All hooks are
    removed at the end of the block, also when it raises.

        with record(backbone=model.backbone, losses=model.losses) as calls:
            model(inputs)
        features = calls["backbone"][0].output
    """
    calls: dict[str, list[Call]] = {name: [] for name in sources}
    undo = []
    try:
        for name, source in sources.items():
            hook = _hook_module if isinstance(source, nn.Module) else _wrap_method
            undo.append(hook(source, calls[name]))
        yield calls
    finally:
        for remove in reversed(undo):
            remove()


def _hook_module(module: nn.Module, calls: list[Call]) -> Callable[[], None]:
    def hook(_, args, output):
        calls.append(Call(args, output))

    return module.register_forward_hook(hook).remove


def _wrap_method(method: Any, calls: list[Call]) -> Callable[[], None]:
    owner, name = method.__self__, method.__name__

    @functools.wraps(method.__func__)
    def wrapper(_, *args, **kwargs):
        output = method(*args, **kwargs)
        calls.append(Call(args, output))
        return output

    before = vars(owner).get(name)  # wrapper of another recording, or None
    setattr(owner, name, MethodType(wrapper, owner))
    return lambda: setattr(owner, name, before) if before else delattr(owner, name)
