"""Teachers from Python configs: Detectron2's LazyConfig."""

from collections.abc import Iterable

import torch
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from eakd_det.config.lazy import remove_distillation
from eakd_det.utils.errors import UserError


def build_lazy_detector(path: str) -> tuple[nn.Module, str]:
    """Build the detector `model` of a Python config, without weights.

    It has the config's normalisation, channel order (model.input_format), strides and padding.

    Returns:
        The detector, and the name of the dataset that the config trains on; or an empty one.

    Raises:
        UserError: the config imports a module that is missing, has no `model`, or its model has no
            backbone or input_format.
    """
    try:
        cfg = LazyConfig.load(path)
    except ImportError as error:
        raise UserError(
            f"TEACHER.CONFIG_FILE: {path} cannot be loaded: {error}. The folder of its project "
            "must be in PYTHONPATH."
        ) from error
    if "model" not in cfg:
        raise UserError(f"TEACHER.CONFIG_FILE: {path} defines {_listed(cfg)}, but no `model`.")
    remove_distillation(cfg.model)  # an earlier distilled student may be the teacher
    with torch.random.fork_rng(devices=[]):
        model = instantiate(cfg.model)
    parts = dict(model.named_children())
    input_format = vars(model).get("input_format")
    if "backbone" not in parts or input_format is None:
        raise UserError(
            f"TEACHER.CONFIG_FILE: the model of {path} is a {type(model).__name__} with "
            f"{_listed(parts)} and input_format {input_format}: a teacher is a detector with a "
            "`backbone`, whose model.input_format is RGB or BGR."
        )
    return model, _dataset(cfg)


def _dataset(cfg: DictConfig) -> str:
    names = OmegaConf.select(cfg, "dataloader.train.dataset.names", default="")
    return names if isinstance(names, str) else next(iter(names), "")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(str, names)) or "nothing"
