"""Checkpoint of a classifier with a temperature in its last linear layer."""

import copy
import os

import torch
from detectron2.config import CfgNode

from eakd_det.analysis.calibration import Calibration, is_at_bound
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import make_folder, write_atomically

from .analysis import Network, Networks, read_batches
from .models import scale_logits
from .sources import source_of

NUM_IMAGES = 8  # on which a scaled network is compared with the original


def check_path(path: str) -> None:
    """Raise UserError if a checkpoint cannot have this path: it exists, or is no .pth file."""
    if not path.endswith(".pth"):
        raise UserError(f"--save-calibrated {path}: the name of a checkpoint ends with .pth.")
    if os.path.exists(path):
        raise UserError(f"--save-calibrated {path}: the file exists; choose another name.")


def network_to_save(networks: Networks) -> Network:
    """Return the network of --save-calibrated: the teacher, or else the only run.

    Raises:
        UserError: there are several runs and no teacher.
    """
    if networks.teacher is None and len(networks.students) > 1:
        raise UserError(
            "--save-calibrated writes one network, but there are several runs and no teacher: name "
            "one run, or a teacher with --teacher."
        )
    return networks.all[-1]


def fitted_temperature(network: Network, calibration: Calibration) -> float:
    """Return the temperature that calibrates a network.

    Raises:
        UserError: it is at a bound of the fit.
    """
    temperature = calibration.temperature
    if is_at_bound(temperature):
        raise UserError(
            f"The fitted temperature of {network.label}, {temperature:.3g}, is at the bound of the "
            "fit, so that it calibrates nothing: no checkpoint was written."
        )
    return temperature


@torch.no_grad()
def write_calibrated(network: Network, temperature: float, cfg: CfgNode, path: str) -> None:
    """Write a network whose last linear layer is divided by a temperature, as WEIGHTS of a config.

    Args:
        cfg: config with the data that the network classifies.
        path: of the checkpoint, which also holds the temperature and the names of the classes.

    Raises:
        UserError: the logits of the scaled network are not the original's over the temperature, or
            the network reads images otherwise than the data are normalised.
    """
    model = copy.deepcopy(network.model)
    scale_logits(model, 1 / temperature)
    batch, *_ = read_batches(cfg, NUM_IMAGES)
    images = batch["views"][0]
    expected, logits = network.model(images) / temperature, model(images)
    if not torch.allclose(logits, expected, rtol=1e-3, atol=1e-3):
        raise UserError(
            f"{network.label} ({type(model).__name__}) does not end with a linear layer: its "
            "logits cannot be scaled by its weights. No checkpoint was written."
        )
    if not torch.allclose(model.forward(images), logits, rtol=1e-3, atol=1e-3):  # without hooks
        raise UserError(
            f"The published weights of {network.label} expect another normalisation than "
            "DATASET.MEAN and STD, which a checkpoint cannot hold. No checkpoint was written."
        )
    names = source_of(cfg.DATASET).names
    content = {"model": model.state_dict(), "temperature": temperature}
    make_folder(os.path.dirname(path) or ".")
    with write_atomically(path, "wb") as f:
        torch.save({**content, "class_names": list(names)} if names else content, f)
