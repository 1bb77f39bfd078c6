"""Evaluation of the checkpoints of detectors' runs."""

import os
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm

from eakd_det.data.registered import check_datasets
from eakd_det.modeling.build import load_student, load_teacher
from eakd_det.utils.files import write_json

from .trainer import DistillTrainer


def evaluate(cfg: CfgNode, weights: str) -> dict[str, Any]:
    """Evaluate a checkpoint on DATASETS.TEST through the stock architecture.

    Every evaluation thus proves that the checkpoint is a stock one.

    Raises:
        UserError: as of `load_student`.
    """
    check_datasets(cfg, ("TEST",))
    return DistillTrainer.test(*load_student(cfg, weights))


def evaluate_teacher(cfg: CfgNode) -> dict[str, Any]:
    """Evaluate a run's teacher on the run's DATASETS.TEST, with the input sizes of its own config.

    Its files go to OUTPUT_DIR/teacher, the result as result.json.
    """
    teacher, model = load_teacher(cfg)
    teacher.DATASETS.TEST = cfg.DATASETS.TEST
    teacher.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, "teacher")
    results = DistillTrainer.test(teacher, model)
    if comm.is_main_process():
        write_json(os.path.join(teacher.OUTPUT_DIR, "result.json"), results)
    return results
