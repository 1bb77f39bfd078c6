"""Build a detector's teacher, a whole stock detector, from its own config."""

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.file_io import PathManager

from eakd_det import model_zoo
from eakd_det.checkpoint.checkpointer import load_strictly
from eakd_det.config.defaults import stock_config
from eakd_det.config.merge import load_config
from eakd_det.utils.errors import UserError
from eakd_det.utils.precision import Precision

from .detector import DetectorTeacher


def build_teacher(cfg: CfgNode) -> DetectorTeacher:
    """Build the teacher of a run from its node TEACHER; see `make_teacher`."""
    node = cfg.TEACHER
    return make_teacher(
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
        config_file: a path, or a name of Detectron2's model zoo.
        weights: any checkpoint that Detectron2 reads.
        device: of its weights, until the student is moved to another.
        precision, amp_dtype: arguments of `Precision`.
        fast, compile_to, ahead, cuda_graphs: arguments of `DetectorTeacher`.

    Raises:
        UserError: config or weights are not named or not found, the weights do not fit, or there
            is no such precision.
    """
    cfg = _config(config_file, weights, device)
    own_precision = Precision(precision, amp_dtype)
    with torch.random.fork_rng(devices=[]):
        model = build_model(cfg)
    names = load_strictly(model, weights, key="TEACHER.WEIGHTS", side="teacher")
    return DetectorTeacher(
        model,
        input_format=cfg.INPUT.FORMAT,
        fast=fast,
        precision=own_precision,
        compile_to=compile_to,
        ahead=ahead,
        cuda_graphs=cuda_graphs,
        class_names=names,
        dataset=next(iter(cfg.DATASETS.TRAIN), ""),
    )


def teacher_config(cfg: CfgNode) -> CfgNode:
    """Return the stock config of a run's teacher, on the student's device.

    Raises:
        UserError: TEACHER.CONFIG_FILE or TEACHER.WEIGHTS is empty, or no such config is found.
    """
    return _config(cfg.TEACHER.CONFIG_FILE, cfg.TEACHER.WEIGHTS, cfg.MODEL.DEVICE)


def _config(name: str, weights: str, device: str) -> CfgNode:
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
    if not PathManager.isfile(path):
        try:
            path = model_zoo.get_config_file(name)
        except UserError as error:
            raise UserError(
                f"TEACHER.CONFIG_FILE: {name} is neither a file nor a config of Detectron2's "
                "model zoo."
            ) from error
    cfg = stock_config(load_config(path))  # an earlier distilled student may be the teacher
    cfg.MODEL.DEVICE = device
    return cfg
