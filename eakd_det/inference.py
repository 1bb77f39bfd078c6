"""Frozen networks that answer fast: norms folded into convolutions, channels_last, half precision.

What is folded is equal but for the order of the additions.
"""

import contextlib
import logging
from collections import Counter
from collections.abc import Collection, Iterable
from itertools import pairwise

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .errors import UserError

HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)  # not what is derived: it may also activate
PRECISIONS = ("", "float32", *HALVES, "amp")


class Precision:
    """In which numbers a frozen network computes: TEACHER.PRECISION.

    Attributes:
        dtype: what its weights and inputs are cast to; None leaves them as they are.
    """

    def __init__(self, name: str = "", amp_dtype: str = "float16"):
        """
        Args:
            name: one of PRECISIONS: "" is that of the student around it (float32, or its
                autocast), "float32" full, "bfloat16" and "float16" cast the weights, "amp" is
                autocast whatever the student does.
            amp_dtype: of "amp", as SOLVER.AMP.DTYPE.

        Raises:
            UserError: there is no such precision.
        """
        if name not in PRECISIONS:
            choices = ", ".join(PRECISIONS[1:])
            raise UserError(
                f"TEACHER.PRECISION: {name!r} is unknown; choose from {choices}, or leave it empty."
            )
        self.name, self.dtype, self.amp_dtype = name, HALVES.get(name), HALVES[amp_dtype]

    def context(self, device: torch.device) -> contextlib.AbstractContextManager:
        """What the network's forward pass on this device runs in."""
        if not self.name:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self.amp_dtype, enabled=self.name == "amp")

    def warn_if_slow(self, device: torch.device) -> None:
        """Say so where a CPU has no instructions for the halves that are asked for."""
        computes_halves = self.dtype is not None or self.name == "amp"
        if computes_halves and device.type == "cpu":
            capability = torch.backends.cpu.get_cpu_capability()
            if capability in ("DEFAULT", "AVX2"):
                logging.getLogger(__name__).warning(
                    f"TEACHER.PRECISION {self.name}: this CPU ({capability}) has no instructions "
                    "for it, and float32 is several times as fast here."
                )


def freeze(model: nn.Module) -> nn.Module:
    """The model, in eval mode and without gradients."""
    return model.eval().requires_grad_(False)


def fold_detector_norms(model: nn.Module) -> None:
    """Fold the batch norms of a detector's convolutions into their weights, in place.

    Detectron2's convolutions hold their norm; others are followed by it in a Sequential. A norm of
    another kind stays.
    """
    for conv in [m for m in model.modules() if type(m) is Conv2d]:
        if isinstance(conv.norm, FrozenBatchNorm2d | _BatchNorm):
            _fold(conv, conv.norm)
            conv.norm = None
    _fold_pairs(model, _pairs_of_sequences(model))


def fold_batch_norms(model: nn.Module, keep: Collection[str] = ()) -> None:
    """Fold each batch norm that alone reads a convolution into that, in place.

    Args:
        model: in eval mode. What is no Sequential is traced; the log says where torch.fx cannot.
        keep: names of modules whose output is looked at, and must stay as it is.
    """
    _fold_pairs(model, _pairs_of_sequences(model), keep)
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:  # a model that is not ours may do anything, and works without
        logging.getLogger(__name__).info(
            f"{type(model).__name__} keeps some batch norms, since it cannot be traced: {error}"
        )
        return
    _fold_pairs(model, _pairs_of_graph(graph), keep)


def _pairs_of_sequences(model: nn.Module) -> list[tuple[str, str]]:
    """Names of modules that follow each other in a Sequential."""
    return [
        (f"{name}.{first}".lstrip("."), f"{name}.{second}".lstrip("."))  # the model's own is ""
        for name, sequence in model.named_modules()
        if type(sequence) is nn.Sequential
        for first, second in pairwise(dict(sequence.named_children()))
    ]


def _pairs_of_graph(graph: fx.Graph) -> list[tuple[str, str]]:
    """Names of modules, called once, of which the second alone reads the first."""
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    pairs = []
    for node in graph.nodes:
        read = node.args[0] if node.op == "call_module" and node.args else None
        is_read_once = isinstance(read, fx.Node) and len(read.users) == 1
        if is_read_once and calls[read.target] == 1 == calls[node.target]:
            pairs.append((read.target, node.target))
    return pairs


def _fold_pairs(
    model: nn.Module, pairs: Iterable[tuple[str, str]], keep: Collection[str] = ()
) -> None:
    modules = dict(model.named_modules())
    for first, second in pairs:
        conv, norm = modules[first], modules[second]
        is_pair = type(conv) is nn.Conv2d and type(norm) in BATCH_NORMS
        if is_pair and norm.track_running_stats and first not in keep:
            _fold(conv, norm)
            parent, _, name = second.rpartition(".")
            setattr(modules[parent], name, nn.Identity())


def _fold(conv: nn.Conv2d, norm: nn.Module) -> None:
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
