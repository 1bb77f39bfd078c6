"""Build a detector's teacher, a whole stock detector, from its own config."""

from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.file_io import PathManager
from torch import nn

from eakd_det import model_zoo
from eakd_det.checkpoint.checkpointer import load_strictly
from eakd_det.config.defaults import stock_config
from eakd_det.config.merge import load_config
from eakd_det.utils.errors import UserError
from eakd_det.utils.precision import Precision

from .detector import DetectorTeacher
from .lazy import build_lazy_detector
from .torchvision_file import PREFIX, load_torchvision


def build_teacher(cfg: CfgNode) -> DetectorTeacher:
    """Build the teacher of a run from its node TEACHER; see `make_teacher`."""
    node = cfg.TEACHER
    teacher = make_teacher(
        node.CONFIG_FILE,
        node.WEIGHTS,
        device=cfg.MODEL.DEVICE,
        fast=node.FAST,
        precision=node.PRECISION,
        amp_dtype=cfg.SOLVER.AMP.DTYPE,
        compile_to=node.COMPILE,
        ahead=node.AHEAD,
        cuda_graphs=node.CUDA_GRAPHS,
    )
    teacher.check_size(cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN)
    return teacher


def make_teacher(
    config_file: str,
    weights: str,
    *,
    device: str = "cpu",
    fast: bool = True,
    precision: str = "",
    amp_dtype: str = "float16",
    compile_to: int = 0,
    ahead: bool = True,
    cuda_graphs: bool = False,
) -> DetectorTeacher:
    """Build a teacher from its config and its checkpoint.

    The random state is restored, so that the student trains as without a teacher.

    Args:
        config_file, weights: see `load_detector`.
        device: of its weights, until the student is moved to another.
        precision, amp_dtype: arguments of `Precision`.
        fast, compile_to, ahead, cuda_graphs: arguments of `DetectorTeacher`.

    Raises:
        UserError: config or weights are not named or not found, the weights do not fit, or there
            is no such precision.
    """
    own_precision = Precision(precision, amp_dtype)
    detector = load_detector(config_file, weights, device)
    return DetectorTeacher(
        detector.model,
        input_format=detector.input_format,
        fast=fast,
        precision=own_precision,
        compile_to=compile_to,
        ahead=ahead,
        cuda_graphs=cuda_graphs,
        class_names=detector.class_names,
        dataset=detector.dataset,
    )


@dataclass
class Detector:
    """A stock detector with its weights.

    Attributes:
        input_format: its channel order, "RGB" or "BGR".
        class_names: those in its checkpoint, in the order of its classes; or empty.
        dataset: the one that its config trains on; or empty.
    """

    model: nn.Module
    input_format: str
    class_names: tuple[str, ...]
    dataset: str


def load_detector(config_file: str, weights: str, device: str) -> Detector:
    """Build a detector from its config, with the weights of its checkpoint.

    Args:
        config_file: a YAML or Python config: a path, or a name of Detectron2's model zoo; or
            torchvision://NAME.
        weights: any checkpoint that Detectron2 reads; of torchvision's detectors those that
            `load_torchvision` takes.

    Raises:
        UserError: config or weights are not named or not found, or the weights do not fit.
    """
    path = _find(config_file, weights)
    if path.startswith(PREFIX):
        model, names = load_torchvision(path, weights)
        return Detector(model.to(device), model.input_format, names, "")
    if is_python(path):
        model, dataset = build_lazy_detector(path)
        input_format = model.input_format
    else:
        cfg = _load(path, device)
        dataset, input_format = next(iter(cfg.DATASETS.TRAIN), ""), cfg.INPUT.FORMAT
        with torch.random.fork_rng(devices=[]):
            model = build_model(cfg)
    names = load_strictly(model.to(device), weights, key="TEACHER.WEIGHTS", side="teacher")
    return Detector(model, input_format, names, dataset)


def has_yaml_config(cfg: CfgNode) -> bool:
    """Return whether a run's teacher has a YAML config, and not a Python config or none."""
    return not (cfg.TEACHER.CONFIG_FILE.startswith(PREFIX) or is_python(cfg.TEACHER.CONFIG_FILE))


def is_python(path: str) -> bool:
    return path.endswith(".py")


def teacher_config(cfg: CfgNode) -> CfgNode:
    """Return the stock config of a run's teacher, on the student's device.

    Raises:
        UserError: TEACHER.CONFIG_FILE or TEACHER.WEIGHTS is empty, or no such YAML config is found.
    """
    path = _find(cfg.TEACHER.CONFIG_FILE, cfg.TEACHER.WEIGHTS)
    if not has_yaml_config(cfg):
        raise UserError(
            f"TEACHER.CONFIG_FILE: {path} is no YAML config, which this command needs of a teacher."
        )
    return _load(path, cfg.MODEL.DEVICE)


def _find(name: str, weights: str) -> str:
    """Return the path of a teacher's config, or torchvision://NAME as it is."""
    if not name:
        raise UserError(
            "TEACHER.CONFIG_FILE is empty: name the teacher's Detectron2 config, or train without "
            "a teacher and set DISTILL.METHODS to ()."
        )
    if not weights:
        raise UserError(
            f"The teacher {name} has no weights: set TEACHER.WEIGHTS to its trained checkpoint."
        )
    path = name
    if not name.startswith(PREFIX) and not PathManager.isfile(path):
        try:
            path = model_zoo.get_config_file(name)
        except UserError as error:
            raise UserError(
                f"TEACHER.CONFIG_FILE: {name} is neither a file nor a config of Detectron2's "
                "model zoo."
            ) from error
    return path


def _load(path: str, device: str) -> CfgNode:
    cfg = stock_config(load_config(path))  # an earlier distilled student may be the teacher
    cfg.MODEL.DEVICE = device
    return cfg
