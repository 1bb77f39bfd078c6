"""Reading what modules and methods computed, without running or changing them."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any, NamedTuple

from torch import nn


class Call(NamedTuple):
    """One call: its positional arguments and what it returned."""

    args: tuple
    output: Any


@contextmanager
def record(**sources: nn.Module | Callable) -> Iterator[dict[str, list[Call]]]:
    """Record every call of the named modules and bound methods while the with-block lasts.

    The outputs stay in the autograd graph, so a loss on them trains the module. Nothing outlives
    the block, also when it raises.

        with record(backbone=model.backbone, losses=model.losses) as calls:
            model(inputs)
        features = calls["backbone"][0].output
    """
    calls: dict[str, list[Call]] = {name: [] for name in sources}
    undo = []
    try:
        for name, source in sources.items():
            listen = _listen_to_module if isinstance(source, nn.Module) else _listen_to_method
            undo.append(listen(source, calls[name]))
        yield calls
    finally:
        for remove in reversed(undo):
            remove()


def _listen_to_module(module: nn.Module, calls: list[Call]) -> Callable[[], None]:
    def hook(_, args, output):
        calls.append(Call(args, output))

    return module.register_forward_hook(hook).remove


def _listen_to_method(method: Callable, calls: list[Call]) -> Callable[[], None]:
    owner, name = method.__self__, method.__name__

    @functools.wraps(method.__func__)
    def wrapper(_, *args, **kwargs):
        output = method(*args, **kwargs)
        calls.append(Call(args, output))
        return output

    before = vars(owner).get(name)  # another recording's, or nothing
    setattr(owner, name, MethodType(wrapper, owner))
    return lambda: setattr(owner, name, before) if before else delattr(owner, name)
