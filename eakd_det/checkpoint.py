"""Checkpoints: written whole or not at all, read without running code, strict where it matters."""

import codecs
import collections
import os
import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathHandler, PathManager
from torch import nn

# What torchvision's ImageNet weights were trained on, in Detectron2's units.
TORCHVISION_PIXEL_MEAN = (123.675, 116.28, 103.53)
TORCHVISION_PREFIX = "torchvision://"


class SafeCheckpointer(DetectionCheckpointer):
    """DetectionCheckpointer that never unpickles code and never leaves half a file behind.

    It also reads torchvision's ResNets, by name (torchvision://resnet18) or from a local file.
    """

    def __init__(self, model: nn.Module, save_dir: str = "", **kwargs: Any):
        super().__init__(model, save_dir, **kwargs)
        self.path_manager = _AtomicPathManager()

    def _load_file(self, filename: str) -> dict[str, Any]:
        if not filename.endswith(".pkl"):
            checkpoint = super()._load_file(filename)
            if _is_torchvision_resnet(checkpoint["model"]):
                self._check_statistics(filename)
                checkpoint["model"] = convert_torchvision_resnet(checkpoint["model"])
                checkpoint["matching_heuristics"] = True
            return checkpoint
        data = load_pickle(filename)
        if "model" in data:
            return data
        # Detectron 1 and its ImageNet models: bare blobs under Caffe2's names.
        blobs = data.get("blobs", data)
        blobs = {key: value for key, value in blobs.items() if not key.endswith("_momentum")}
        return {"model": blobs, "__author__": "Caffe2", "matching_heuristics": True}

    def _torch_load(self, filename: str) -> dict[str, Any]:
        try:
            return torch.load(filename, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{filename} is no checkpoint of tensors and plain containers, and nothing else is "
                f"loaded, since it could run code: {error}"
            ) from error

    def _check_statistics(self, filename: str) -> None:
        mean = self.model.pixel_mean.flatten().tolist()
        if self.model.input_format != "RGB" or not np.allclose(mean, TORCHVISION_PIXEL_MEAN, 1e-3):
            raise ValueError(
                f"{filename} holds torchvision weights, trained on RGB images: set INPUT.FORMAT "
                "RGB, MODEL.PIXEL_MEAN [123.675, 116.28, 103.53] and MODEL.PIXEL_STD "
                "[58.395, 57.12, 57.375]."
            )


class StrictCheckpointer(SafeCheckpointer):
    """SafeCheckpointer that refuses weights which do not fit the model exactly."""

    def __init__(self, model: nn.Module, *, key: str):
        """`key` is the configuration key of the weights, for the message."""
        super().__init__(model)
        self.key = key

    def _load_model(self, checkpoint: dict[str, Any]):
        incompatible = super()._load_model(checkpoint)
        wrong = {key for key, *_ in incompatible.incorrect_shapes}
        faults = {
            "missing": [key for key in incompatible.missing_keys if key not in wrong],
            "unexpected": incompatible.unexpected_keys,
            "wrongly shaped": [
                f"{key} {there} in the file, {here} in the model"
                for key, there, here in incompatible.incorrect_shapes
            ],
        }
        lines = [f"  {name}: {_shorten(items)}" for name, items in faults.items() if items]
        if lines:
            raise ValueError(f"{self.key} does not fit its model:\n" + "\n".join(lines))
        return incompatible


def load_strictly(model: nn.Module, path: str, *, key: str) -> None:
    """Load weights that must fit `model` exactly.

    Args:
        path: any checkpoint that Detectron2 reads: .pth or .pkl, local or a URL.
        key: the configuration key that names it, for the message.

    Raises:
        ValueError: the file is missing or unsafe, or weights are missing, unexpected or wrongly
            shaped; all are listed.
    """
    try:
        StrictCheckpointer(model, key=key).load(path, checkpointables=[])
    except (AssertionError, OSError) as error:
        raise ValueError(f"{key}: {path} cannot be read: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _shorten(items: Iterable[str], most: int = 20) -> str:
    items = list(items)
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return f"{len(items)} ({', '.join(items[:most])}{more})"


class _AtomicPathManager:
    """PathManager whose written files appear under their name when they are complete."""

    def __getattr__(self, name: str) -> Any:
        return getattr(PathManager, name)

    def open(self, path: str, mode: str = "r", **kwargs: Any):
        return (
            write_atomically(path, mode) if "w" in mode else PathManager.open(path, mode, **kwargs)
        )


@contextmanager
def write_atomically(path: str, mode: str = "w") -> Iterator[Any]:
    """Open a local file for writing aside; it takes the name `path` once it is on disk whole."""
    aside = f"{path}.incomplete"
    try:
        with open(aside, mode) as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(aside, path)
    finally:
        if os.path.exists(aside):
            os.remove(aside)


# The functions by which NumPy's own pickles rebuild arrays; asked of NumPy, since it moves them.
_NUMPY_BUILDERS = {
    "_reconstruct": np.empty(0).__reduce__()[0],
    "_frombuffer": np.empty(1).__reduce_ex__(5)[0],
    "scalar": np.float32(0).__reduce__()[0],
}
_PLAIN_TYPES = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,  # the bytes of an array in a pickle of protocol 2
}


class _ArrayUnpickler(pickle.Unpickler):
    """Admits NumPy arrays and plain containers alone."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith(("numpy.core.", "numpy._core.")) and name in _NUMPY_BUILDERS:
            return _NUMPY_BUILDERS[name]
        if (module, name) in _PLAIN_TYPES:
            return _PLAIN_TYPES[module, name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


def load_pickle(filename: str) -> dict[str, Any]:
    """Read a .pkl of arrays in dicts and lists.

    Raises:
        ValueError: the file holds anything else, which could run code; nothing of it is run.
    """
    with PathManager.open(filename, "rb") as f:
        try:
            return _ArrayUnpickler(f, encoding="latin1").load()
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{filename} holds more than arrays and plain containers: {error}"
            ) from error


class TorchvisionPathHandler(PathHandler):
    """Resolves torchvision://NAME to torchvision's first ImageNet weights, downloaded once."""

    def _get_supported_prefixes(self) -> list[str]:
        return [TORCHVISION_PREFIX]

    def _get_local_path(self, path: str, **kwargs: Any) -> str:
        name = path.removeprefix(TORCHVISION_PREFIX)
        # The first recipe's weights are the ones that detection papers start from.
        weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
        return PathManager.get_local_path(weights.url, **kwargs)

    def _open(self, path: str, mode: str = "r", **kwargs: Any):
        return PathManager.open(self._get_local_path(path), mode, **kwargs)


PathManager.register_handler(TorchvisionPathHandler())


def _is_torchvision_resnet(state: dict[str, Any]) -> bool:
    return "conv1.weight" in state and "layer1.0.conv1.weight" in state


def convert_torchvision_resnet(state: dict[str, Any]) -> dict[str, Any]:
    """Rename the weights of a torchvision ResNet to Detectron2's names; its classifier is dropped.

    layer1..4 become res2..5, bnK convK.norm, downsample shortcut, and the first layers the stem.
    """
    renamed = {}
    for key, value in state.items():
        if key.startswith("fc.") or key.endswith("num_batches_tracked"):
            continue
        if not key.startswith("layer"):
            key = f"stem.{key}"
        for layer in (1, 2, 3, 4):
            key = key.replace(f"layer{layer}.", f"res{layer + 1}.")
        for conv in (1, 2, 3):
            key = key.replace(f"bn{conv}.", f"conv{conv}.norm.")
        key = key.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
        renamed[key] = value
    return renamed


def last_checkpoint(output_dir: str) -> str:
    """Path of the newest checkpoint of a run.

    Raises:
        ValueError: the folder has none.
    """
    checkpointer = SafeCheckpointer(nn.Module(), output_dir)
    if not checkpointer.has_checkpoint():
        raise ValueError(f"{output_dir} holds no checkpoint of an earlier run.")
    return checkpointer.get_checkpoint_file()
