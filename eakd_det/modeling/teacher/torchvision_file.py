"""Files and published weights of torchvision's detectors."""

import logging
from collections.abc import Sequence

import torch
from detectron2.utils.file_io import PathManager
from torch import nn
from torchvision.models import detection, get_model, get_model_weights, list_models

from eakd_det.checkpoint.checkpointer import load_strictly
from eakd_det.checkpoint.foreign import select_network, unpack_container
from eakd_det.checkpoint.safe_pickle import load_pth
from eakd_det.utils.errors import UserError

from .torchvision_detector import convert_detector

PREFIX = "torchvision://"
MISSING = "N/A"  # torchvision's name of COCO's ids without a category
NUM_COCO = 91  # columns of the weights for COCO, background among them

# Keys of the layers whose rows are the classes: of R-CNNs, and of RetinaNet for every anchor; and a
# key of RetinaNet's layer with four rows for every anchor.
_RCNN, _RETINANET, _DELTAS = (
    "roi_heads.box_predictor.cls_score.weight",
    "head.classification_head.cls_logits.weight",
    "head.regression_head.bbox_reg.weight",
)


def load_torchvision(config_file: str, weights: str) -> tuple[nn.Module, tuple[str, ...]]:
    """Load a detector of torchvision as one of Detectron2 (`convert_detector`).

    Args:
        config_file: torchvision://NAME, the name of a Faster or Mask R-CNN or RetinaNet.
        weights: a file with its state_dict, or a name of torchvision's weights, which are
            downloaded.

    Returns:
        The detector, and the names of its classes; empty if they are not known. The names are those
        of the weights, or "class_names" of the file; without them 91 classes are COCO's.

    Raises:
        UserError: there is no such model, or the file is missing or does not fit it.
    """
    name = config_file.removeprefix(PREFIX)
    names = list_models(detection, include=["fasterrcnn*", "maskrcnn*", "retinanet*"])
    if name not in names:
        raise UserError(f"TEACHER.CONFIG_FILE: {config_file}: choose from {', '.join(names)}.")
    published = get_model_weights(name).__members__
    with torch.random.fork_rng(devices=[]):
        if weights in published:
            model = get_model(name, weights=published[weights])
            categories = published[weights].meta["categories"]
        else:
            model, categories = _load_file(name, weights, published["DEFAULT"].meta["categories"])
        chosen = [i for i in range(1, len(categories)) if categories[i] != MISSING]
        class_names = tuple(categories[i] for i in chosen if categories[i])
        return convert_detector(model, chosen), class_names


def _load_file(name: str, path: str, of_coco: Sequence[str]) -> tuple[nn.Module, Sequence[str]]:
    """Load a model from a file; return it and the name of each column, "" if it is not known."""
    number = _count_columns(name, path)
    options = {"weights": None, "weights_backbone": None, "num_classes": number}
    model = get_model(name, **options)
    names = load_strictly(model, path, key="TEACHER.WEIGHTS", side="teacher")
    if len(names) == number:  # background is the first
        return model, names
    if len(names) == number - 1:
        return model, ["", *names]
    if number == NUM_COCO:
        logging.getLogger(__name__).info(
            f"{path} has {NUM_COCO} classes and no names: they are taken as those of torchvision's "
            "weights for COCO."
        )
        return model, of_coco
    return model, [""] * number


def _count_columns(name: str, path: str) -> int:
    """Return the number of classes, background among them, in a file.

    Raises:
        UserError: there is no such file, or it has no classifier of a detector of torchvision.
    """
    if not PathManager.exists(path):
        known = ", ".join(get_model_weights(name).__members__)
        raise UserError(
            f"TEACHER.WEIGHTS: {path} is neither a file nor one of torchvision's weights of "
            f"{name}: {known}."
        )
    content = unpack_container(load_pth(PathManager.get_local_path(path)))
    state = select_network(content.get("model", content), "teacher", [_RCNN, _RETINANET])
    if _RCNN in state:
        return len(state[_RCNN])
    if _RETINANET in state and _DELTAS in state:
        return 4 * len(state[_RETINANET]) // len(state[_DELTAS])
    raise UserError(
        f"TEACHER.WEIGHTS: {path} has no {_RCNN} and no {_RETINANET}: it is no state_dict of "
        f"torchvision's {name}."
    )
