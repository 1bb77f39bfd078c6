"""TorchScript files."""

import torch
from detectron2.export import TracingAdapter
from torch import Tensor

from .traceable import expected_warnings


def write_torchscript(
    adapter: TracingAdapter, image: Tensor, path: str, metadata: dict[str, str]
) -> None:
    """Trace a detector and write it.

    Args:
        adapter: see `make_traceable`.
        image: (3, H, W) uint8, on which it is traced.
        path: of the file.
        metadata: written as extra files, which torch.jit.load reads into its _extra_files.
    """
    with expected_warnings(), torch.no_grad():
        traced = torch.jit.trace(adapter, (image,), check_trace=False)
        torch.jit.save(traced, path, _extra_files=metadata)


def load_torchscript(path: str) -> torch.jit.ScriptModule:
    """Load a file of `write_torchscript` onto the CPU."""
    with expected_warnings():
        return torch.jit.load(path, map_location="cpu")
