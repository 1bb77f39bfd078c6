"""Detections of a trained detector on single images."""

import os

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.detection_utils import (
    build_augmentation,
    convert_PIL_to_numpy,
    read_image,
)
from detectron2.data.transforms import AugInput, AugmentationList
from detectron2.structures import Instances
from PIL import Image

from eakd_det.checkpoint.run_folder import RunFolder, find_run
from eakd_det.config.merge import load_config
from eakd_det.data.class_names import dataset_names
from eakd_det.data.image_files import check_image_file, has_wide_values
from eakd_det.modeling.build import load_student, num_classes
from eakd_det.utils.device import use_available_device
from eakd_det.utils.errors import UserError


class Predictor:
    """Stock model of a trained detector, for one image at a time.

    Images are resized and brought into the model's channel order as in an evaluation.

    Attributes:
        cfg: stock config of the model.
        model: in evaluation mode.
        class_names: names in the order of the classes. They are those in the checkpoint, or of a
            registered dataset of the config; unknown ones are "class 0" and so on.
    """

    def __init__(self, run: str | RunFolder, device: str | None = None, score: float = 0.5):
        """
        Args:
            run: folder of the detector, as `find_run` reads it, or what it has found there.
            device: such as "cuda:1"; None is MODEL.DEVICE of the config, or "cpu" if that is a GPU
                that does not exist.
            score: least score of a detection, from 0 to 1.

        Raises:
            UserError: see `find_run`; the weights do not fit the model, or the device or the score
                is not valid.
        """
        if not 0 <= score <= 1:
            raise UserError(f"The least score of a detection is {score}: name one from 0 to 1.")
        run = find_run(run) if isinstance(run, str) else run
        cfg = load_config(run.config_file)
        if device is None:
            use_available_device(cfg)
        else:
            cfg.MODEL.DEVICE = _check_device(device)
        cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = cfg.MODEL.RETINANET.SCORE_THRESH_TEST = score
        self.cfg, self.model = load_student(cfg, run.weights)
        self.model.eval()
        self.class_names = class_names(self.cfg, run.class_names or ())

    @torch.no_grad()
    def __call__(self, image: np.ndarray | str | os.PathLike) -> Instances:
        """Return the detections on an image, on the CPU and in pixels of the image.

        Args:
            image: (H, W, 3) RGB of uint8, or the path of a file.

        Raises:
            UserError: the file cannot be read, or the array is not such an image.
        """
        if not isinstance(image, np.ndarray):
            image = read_rgb(os.fspath(image))
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UserError(
                f"An image is an array of shape (H, W, 3) and type uint8, in RGB; this one has "
                f"shape {image.shape} and type {image.dtype}."
            )
        height, width = image.shape[:2]
        pixels = model_input(self.cfg, image)
        output = self.model([{"image": pixels, "height": height, "width": width}])[0]
        return output["instances"].to("cpu")


def model_input(cfg: CfgNode, image: np.ndarray) -> torch.Tensor:
    """Resize an image as in an evaluation, and bring it into the model's channel order.

    Args:
        cfg: of the model.
        image: (H, W, 3) uint8, in RGB.

    Returns:
        (channels, height, width) as the model takes it.
    """
    resized = AugInput(convert_PIL_to_numpy(Image.fromarray(image), cfg.INPUT.FORMAT))
    AugmentationList(build_augmentation(cfg, is_train=False))(resized)
    return torch.as_tensor(np.ascontiguousarray(resized.image.transpose(2, 0, 1)))


def read_rgb(path: str) -> np.ndarray:
    """Read an image file as (H, W, 3) RGB, rotated as its EXIF data have it.

    Raises:
        UserError: it is missing or broken, or its values do not fit into 8 bits.
    """
    try:
        problem = check_image_file(path).problem if has_wide_values(path) else ""
        image = read_image(path, "RGB")
    except Exception as error:  # a broken image can raise almost any
        problem = check_image_file(path).problem or f"{path} cannot be read: {error}"
        raise UserError(problem) from error
    if problem:
        raise UserError(problem)
    return image


def _check_device(name: str) -> str:
    try:
        torch.zeros(1, device=name)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"The device {name!r} cannot be used: {reason}.") from error
    return name


def class_names(cfg: CfgNode, stored: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of a model's classes in their order.

    Args:
        cfg: of the model.
        stored: names in the checkpoint, empty if it has none; then they are those of a registered
            dataset of the config, or "class 0" and so on.
    """
    _, number = num_classes(cfg)
    datasets = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    candidates = [stored, *map(dataset_names, datasets)]
    # A config that is based on another one may still have that one's datasets.
    fitting = (names for names in candidates if len(names) == number)
    return next(fitting, tuple(f"class {i}" for i in range(number)))
