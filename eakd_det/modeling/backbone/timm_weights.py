"""Published weights of timm's models for detectors: MODEL.WEIGHTS timm://NAME."""

import os
from typing import IO, Any

import torch
from detectron2.utils.file_io import PathHandler, PathManager
from iopath.common.file_io import get_cache_dir

from eakd_det.utils.external_models import downloading, published_pixels
from eakd_det.utils.files import make_folder, write_atomically

from .timm_maps import create_features

PREFIX = "timm://"
_OTHERWISE = "train the student from scratch (MODEL.WEIGHTS '')"


class TimmPathHandler(PathHandler):
    """Path handler that resolves timm://NAME to a file of the model's published weights.

    The file, in iopath's cache, has them under the names of a detector's backbone, and the mean and
    standard deviation of pixels that they expect.
    """

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _get_local_path(self, path: str, **kwargs: Any) -> str:
        name = path.removeprefix(PREFIX)
        mean, std = published_pixels(name)
        with downloading(f"timm:{name}", _OTHERWISE):
            state = create_features(name, pretrained=True).state_dict()
        folder = os.path.join(get_cache_dir(), "timm")
        make_folder(folder)
        file = os.path.join(folder, f"{name}.pth")
        weights = {f"backbone.bottom_up.features.{key}": value for key, value in state.items()}
        with write_atomically(file, "wb") as f:
            torch.save({"model": weights, "pixel_mean": mean, "pixel_std": std}, f)
        return file

    def _open(self, path: str, mode: str = "r", **kwargs: Any) -> IO[Any]:
        return PathManager.open(self._get_local_path(path), mode, **kwargs)


PathManager.register_handler(TimmPathHandler())
