"""Images on which an exported detector is compared with the model."""

import os

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import Tensor
from torch.nn import functional as F

from eakd_det.evaluation.predictions import find_images
from eakd_det.evaluation.predictor import model_input, read_rgb

NUMBER = 5
SIZES = ((480, 640), (640, 480))  # of generated scenes, before the resizing


def read_images(cfg: CfgNode, folder: str | None) -> tuple[str, dict[str, Tensor]]:
    """Return the first NUMBER images of a folder or a dataset of the run, or generated scenes.

    Args:
        folder: of image files; None: the first dataset of DATASETS.TEST and TRAIN whose files are
            there, else generated scenes.

    Returns:
        Description of the source, and name -> (3, H, W) uint8, as an evaluation resizes them.

    Raises:
        UserError: the folder has no images, or one cannot be read.
    """
    source, paths = _find(cfg, folder)
    scenes = {path: read_rgb(path) for path in paths}
    missing = NUMBER - len(scenes)
    if missing:
        generated = f"{missing} generated scene{'s' if missing > 1 else ''}"
        source = f"{len(scenes)} of {source} and {generated}" if scenes else generated
        scenes |= {f"generated scene {i + 1}": _generate(i) for i in range(missing)}
    return source, {name: model_input(cfg, scene) for name, scene in scenes.items()}


def add_other_size(images: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
    """Crop the last image if all have the height and width `size` of the traced one."""
    if any(tuple(image.shape[1:]) != size for image in images.values()):
        return images
    *_, (name, image) = images.items()
    height, width = max(1, size[0] * 7 // 8), max(1, size[1] * 3 // 4)
    cropped = image[:, :height, :width].contiguous()
    rest = {key: value for key, value in images.items() if key != name}
    return {**rest, f"{name}, cropped to {height} x {width}": cropped}


def _find(cfg: CfgNode, folder: str | None) -> tuple[str, list[str]]:
    if folder is not None:
        return folder, find_images([folder])[:NUMBER]
    for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        annotations = MetadataCatalog.get(name).get("json_file", "")
        if name in DatasetCatalog and os.path.isfile(annotations):
            paths = [scene["file_name"] for scene in DatasetCatalog.get(name)[:NUMBER]]
            if all(map(os.path.isfile, paths)):
                return name, paths
    return "", []


def _generate(seed: int) -> np.ndarray:
    """Generate (H, W, 3) uint8: smooth colours with edges and noise."""
    generator = torch.Generator().manual_seed(seed)
    height, width = SIZES[seed % len(SIZES)]
    coarse = torch.rand(1, 3, 12, 12, generator=generator) * 255
    edges = F.interpolate(coarse, (height, width), mode="nearest")
    smooth = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    noise = 16 * torch.randn(1, 3, height, width, generator=generator)
    scene = (0.6 * smooth + 0.4 * edges + noise).clamp(0, 255)
    return scene[0].permute(1, 2, 0).to(torch.uint8).numpy()
