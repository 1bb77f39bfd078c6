"""student.yaml of a run: its student as plain Detectron2 sees it."""

import copy
import os

from detectron2.config import CfgNode
from detectron2.evaluation import COCOEvaluator
from omegaconf import DictConfig, OmegaConf

from eakd_det.config.defaults import stock_config
from eakd_det.config.lazy import node_class, remove_distillation
from eakd_det.evaluation.coco import Evaluator
from eakd_det.utils.files import write_atomically

NAME = "student.yaml"
WEIGHTS = "model_final.pth"
NODES = ("model", "dataloader", "train", "optimizer", "lr_multiplier")  # of a Python config


def write_student_config(cfg: CfgNode) -> None:
    """Write OUTPUT_DIR/student.yaml: a plain Detectron2 config of the student, without our keys.

    Its MODEL.WEIGHTS is the run's final checkpoint.
    """
    student = stock_config(cfg)
    student.MODEL.WEIGHTS = os.path.join(cfg.OUTPUT_DIR, WEIGHTS)
    os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    with write_atomically(os.path.join(cfg.OUTPUT_DIR, NAME)) as f:
        f.write(student.dump())


def stock_lazy_config(cfg: DictConfig) -> DictConfig:
    """Copy a Python config without this package: the student as plain Detectron2 sees it.

    It is saved as student.yaml, which Detectron2's LazyConfig.load reads. It has the nodes that
    Detectron2's lazyconfig_train_net.py reads, with interpolations resolved; its
    train.init_checkpoint is the run's final checkpoint.
    """
    cfg = copy.deepcopy(cfg)
    OmegaConf.resolve(cfg)
    remove_distillation(cfg.model)
    dataloader, train = cfg.dataloader, cfg.train
    evaluator = dataloader.get("evaluator")
    if isinstance(evaluator, DictConfig) and node_class(evaluator) is Evaluator:
        evaluator._target_ = COCOEvaluator
    accumulate = train.pop("accumulate", 1)
    if "total_batch_size" in dataloader.train:
        dataloader.train.total_batch_size *= accumulate
    for key in ("best_metric", "prefetch", "fused", "channels_last"):
        train.pop(key, None)
    train.amp.pop("dtype", None)
    train.init_checkpoint = os.path.join(train.output_dir, WEIGHTS)
    return OmegaConf.create({key: cfg[key] for key in NODES}, flags={"allow_objects": True})
