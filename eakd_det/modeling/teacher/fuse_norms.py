"""Frozen networks, with norms folded into convolutions: equal but for the order of additions."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable
from itertools import pairwise

from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)  # not what is derived: it may also activate


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
