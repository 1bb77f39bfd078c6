"""Fusion of batch norms into the convolutions before them; outputs differ by rounding alone."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable
from itertools import pairwise

from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)  # no subclasses: they may also activate


def freeze(model: nn.Module) -> nn.Module:
    """Set the model to eval mode, without gradients, and return it."""
    return model.eval().requires_grad_(False)


def fuse_detector_norms(model: nn.Module, keep: Collection[str] = ()) -> None:
    """Fuse the batch norms of a detector's convolutions into their weights, in place.

    A Conv2d of Detectron2 holds its norm; others are followed by it in a Sequential. Norms of
    other kinds stay.

    Args:
        model: in eval mode.
        keep: names of modules whose output is read elsewhere and must not change.
    """
    for name, conv in [(n, m) for n, m in model.named_modules() if type(m) is Conv2d]:
        is_batch_norm = isinstance(conv.norm, FrozenBatchNorm2d | _BatchNorm)
        if is_batch_norm and f"{name}.norm" not in keep:
            _fuse(conv, conv.norm)
            conv.norm = None
    _fuse_pairs(model, _pairs_of_sequences(model), keep)


def fuse_batch_norms(model: nn.Module, keep: Collection[str] = ()) -> None:
    """Fuse each batch norm that is the only reader of a convolution into it, in place.

    Args:
        model: in eval mode. Beside pairs in a Sequential, pairs are found by tracing with torch.fx;
            a model that cannot be traced keeps those norms, and the log says so.
        keep: names of modules whose output is read elsewhere and must not change.
    """
    _fuse_pairs(model, _pairs_of_sequences(model), keep)
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:  # a user's model may raise anything; it is correct unfused
        logging.getLogger(__name__).info(
            f"{type(model).__name__} keeps some batch norms, since it cannot be traced: {error}"
        )
        return
    _fuse_pairs(model, _pairs_of_graph(graph), keep)


def _pairs_of_sequences(model: nn.Module) -> list[tuple[str, str]]:
    """Return names of pairs that follow each other in a Sequential."""
    return [
        (f"{name}.{first}".lstrip("."), f"{name}.{second}".lstrip("."))  # the model's own is ""
        for name, sequence in model.named_modules()
        if type(sequence) is nn.Sequential
        for first, second in pairwise(dict(sequence.named_children()))
    ]


def _pairs_of_graph(graph: fx.Graph) -> list[tuple[str, str]]:
    """Return names of pairs, each called once, with the second the only reader of the first."""
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    pairs = []
    for node in graph.nodes:
        read = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(read, fx.Node) or len(read.users) > 1:
            continue
        if calls[read.target] == 1 == calls[node.target]:
            pairs.append((str(read.target), str(node.target)))
    return pairs


def _fuse_pairs(
    model: nn.Module, pairs: Iterable[tuple[str, str]], keep: Collection[str] = ()
) -> None:
    modules = dict(model.named_modules())
    for first, second in pairs:
        conv, norm = modules[first], modules[second]
        is_pair = type(conv) is nn.Conv2d and type(norm) in BATCH_NORMS
        if is_pair and norm.track_running_stats and first not in keep:
            _fuse(conv, norm)
            parent, _, name = second.rpartition(".")
            setattr(modules[parent], name, nn.Identity())


def _fuse(conv: nn.Conv2d, norm: nn.Module) -> None:
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
