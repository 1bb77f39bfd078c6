"""Reading what modules computed, without running or changing them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import nn


class Call(NamedTuple):
    """One call of a module: its positional arguments and what it returned."""

    args: tuple
    output: Any


@contextmanager
def record(**modules: nn.Module) -> Iterator[dict[str, list[Call]]]:
    """Record every call of the named modules for as long as the with-block lasts.

    The outputs stay in the autograd graph, so a loss on them trains the module. No hook outlives
    the block, also when it raises.

        with record(backbone=model.backbone) as calls:
            model(inputs)
        features = calls["backbone"][0].output
    """
    calls: dict[str, list[Call]] = {name: [] for name in modules}
    handles = [
        module.register_forward_hook(
            lambda _, args, output, name=name: calls[name].append(Call(args, output))
        )
        for name, module in modules.items()
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
