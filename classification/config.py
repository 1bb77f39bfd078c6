"""Configuration keys of the classifiers: a small root of their own, in Detectron2's style."""

import re
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode

from eakd_det.config.defaults import distill_node
from eakd_det.config.merge import merge_config
from eakd_det.distillers import method_settings
from eakd_det.utils.errors import UserError

from .distillers import DISTILLERS
from .names import OUTPUT_DIR, default_output_dir

# Keys of DATASET for image files of any size: imagenet, folder, csv and torchvision:NAME.
IMAGE_KEYS: dict[str, Any] = {
    "IMAGE_SIZE": 0,  # height and width of the models' input; 0: 224
    "MEAN": (),  # of each channel, for values between 0 and 1; empty: ImageNet's
    "STD": (),  # likewise
    "INTERPOLATION": "bilinear",  # or "bicubic", "nearest"
    "CROP": "resized",  # random crops of any scale; or "padded", the whole image moved a little
    "FLIP": True,  # mirror half of the training images
    "RANDAUGMENT": 0,  # magnitude of RandAugment's two operations, up to 30; 0: none
}


def classification_config() -> CfgNode:
    """Return the default config; the defaults of the methods come from the losses' signatures."""
    cfg = CfgNode()
    cfg.VERSION = 2  # as in Detectron2's configs
    cfg.OUTPUT_DIR = OUTPUT_DIR  # for own images: output/<data>/<method>/<models>
    cfg.SEED = 0  # 0 or more; of the initial weights, the shuffling and the augmentation
    cfg.CUDNN_BENCHMARK = True
    cfg.DDP_TIMEOUT = 1800  # seconds that the processes of a run wait for one another

    cfg.MODEL = CfgNode()
    cfg.MODEL.NAME = ""  # a key of classification.models.MODELS, timm:NAME or torchvision:NAME
    cfg.MODEL.WEIGHTS = ""  # a checkpoint to start from; "pretrained" for timm and torchvision
    cfg.MODEL.LAYERS = ()  # timm and torchvision: modules that output maps, the stem first
    cfg.MODEL.DEVICE = "cuda"  # the CPU if there is no GPU
    cfg.MODEL.CHANNELS_LAST = False  # memory format of student, images and unprepared teacher

    cfg.TEACHER = CfgNode()
    cfg.TEACHER.CONFIG_FILE = ""  # config of the teacher's own run, which is trained if needed
    cfg.TEACHER.NAME = ""  # as MODEL.NAME; empty: the name in CONFIG_FILE
    cfg.TEACHER.WEIGHTS = ""  # as MODEL.WEIGHTS; empty: the last checkpoint of CONFIG_FILE's run
    cfg.TEACHER.LAYERS = ()
    # Of a teacher that is trained first, with CONFIG_FILE and NAME:
    cfg.TEACHER.PRETRAINED = False  # start from the published weights of timm or torchvision
    cfg.TEACHER.EPOCHS = 0  # 0: those of CONFIG_FILE
    cfg.TEACHER.OUTPUT_DIR = ""  # empty: that of CONFIG_FILE
    cfg.TEACHER.FAST = True  # fuse batch norms into convolutions, channels_last; not for FCFD
    cfg.TEACHER.PRECISION = ""  # float32, bfloat16, float16 or amp; empty: the student's

    cfg.DATASET = CfgNode()
    cfg.DATASET.NAME = ""  # a key of sources.DATASETS, folder, csv or torchvision:NAME
    cfg.DATASET.ROOT = ""  # empty: $DETECTRON2_DATASETS, or ./datasets; not for folder and csv
    cfg.DATASET.TRAIN_CSV = ""  # of csv: lines of path,label; empty: ROOT/train.csv
    cfg.DATASET.VAL_CSV = ""
    cfg.DATASET.TRAIN_SIZE = 0  # training images, a fixed random subset; 0: all
    cfg.DATASET.NUM_WORKERS = 0  # processes that read and augment images
    cfg.DATASET.update(IMAGE_KEYS)

    cfg.SOLVER = CfgNode()
    cfg.SOLVER.EPOCHS = 240
    cfg.SOLVER.BATCH_SIZE = 64  # images per step, over all processes and micro-batches
    cfg.SOLVER.ACCUMULATE = 1  # micro-batches per step on each process
    cfg.SOLVER.BASE_LR = 0.05
    cfg.SOLVER.STEPS = ()  # epochs after which the learning rate is multiplied by GAMMA
    cfg.SOLVER.GAMMA = 0.1
    cfg.SOLVER.MOMENTUM = 0.9
    cfg.SOLVER.NESTEROV = False
    cfg.SOLVER.WEIGHT_DECAY = 5e-4
    cfg.SOLVER.FUSED = True  # on a GPU: the fused optimizer, which leaves out a bad step by itself
    cfg.SOLVER.CHECKPOINT_PERIOD = 1  # epochs
    cfg.SOLVER.KEEP_CHECKPOINTS = 1  # number of checkpoints to keep; 0: all
    cfg.SOLVER.CUDA_GRAPHS = False  # on a GPU: replay forward and backward pass as a CUDA graph
    cfg.SOLVER.AMP = CfgNode({"ENABLED": False, "DTYPE": "float16"})  # or "bfloat16"

    cfg.TEST = CfgNode()
    cfg.TEST.EVAL_PERIOD = 1  # epochs
    cfg.TEST.BATCH_SIZE = 256  # images per batch on each process

    methods = {name: {"warmup": 0.0, **d.defaults} for name, d in DISTILLERS.items()}
    cfg.DISTILL = distill_node(methods)
    cfg.DISTILL.CE_WEIGHT = 1.0  # weight of the cross-entropy with the labels
    return cfg


def load_config(path: str, options: list[str] = ()) -> CfgNode:
    """Return the default config, updated from a file and then from KEY VALUE pairs.

    Raises:
        UserError: a file, key or value is invalid.
    """
    cfg = classification_config()
    merge_config(cfg, path, options)
    method_settings(cfg.DISTILL, DISTILLERS)  # before data are read or a teacher is trained
    if cfg.SEED < 0:
        raise UserError("SEED must be 0 or more: a resumed run needs the same seed.")
    for key, value in _must_be_positive(cfg):
        if value < 1:
            raise UserError(f"{key} must be 1 or more, not {value}.")
    for key, value in [
        ("DATASET.TRAIN_SIZE", cfg.DATASET.TRAIN_SIZE),
        ("DATASET.NUM_WORKERS", cfg.DATASET.NUM_WORKERS),
        ("SOLVER.KEEP_CHECKPOINTS", cfg.SOLVER.KEEP_CHECKPOINTS),
        ("TEACHER.EPOCHS", cfg.TEACHER.EPOCHS),
    ]:
        if value < 0:
            raise UserError(f"{key} must be 0 or more, not {value}.")
    if not cfg.DISTILL.EA.TEMPERATURE > 0:
        raise UserError(
            f"DISTILL.EA.TEMPERATURE must be above 0, not {cfg.DISTILL.EA.TEMPERATURE}."
        )
    steps, epochs = list(cfg.SOLVER.STEPS), cfg.SOLVER.EPOCHS
    is_whole = all(isinstance(step, int) and step > 0 for step in steps)
    if not is_whole or steps != sorted(set(steps)) or steps[-1:] >= [epochs]:
        raise UserError(
            f"SOLVER.STEPS {tuple(steps)} must be increasing whole epochs, from 1 to less than "
            f"EPOCHS {epochs}."
        )
    if cfg.OUTPUT_DIR == OUTPUT_DIR:
        cfg.OUTPUT_DIR = default_output_dir(cfg, path)
    return cfg


def as_options(keys: Mapping[str, Any]) -> list[str]:
    """Return keys and values as the KEY VALUE pairs of a command line."""
    return [text for key, value in keys.items() for text in (key, _as_text(value))]


def _as_text(value: Any) -> str:
    """Return a value as text that yacs reads as it; quoted where it would be a number or empty."""
    is_plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z./][\w./: -]*", value)
    return value if is_plain and value not in ("True", "False", "None") else repr(value)


def scaled_schedule(solver: CfgNode, epochs: int) -> dict[str, Any]:
    """Return SOLVER.EPOCHS and STEPS of a schedule that is scaled to a number of epochs."""
    steps = {round(step * epochs / solver.EPOCHS) for step in solver.STEPS}
    return {
        "SOLVER.EPOCHS": epochs,
        "SOLVER.STEPS": tuple(sorted(step for step in steps if 0 < step < epochs)),
    }


def _must_be_positive(cfg: CfgNode) -> list[tuple[str, Any]]:
    keys = [
        ("SOLVER", ("EPOCHS", "BATCH_SIZE", "ACCUMULATE", "CHECKPOINT_PERIOD")),
        ("TEST", ("EVAL_PERIOD", "BATCH_SIZE")),
    ]
    values = [(f"{node}.{key}", cfg[node][key]) for node, names in keys for key in names]
    return [*values, ("DISTILL.CTKD.EPOCHS", cfg.DISTILL.CTKD.EPOCHS)]
