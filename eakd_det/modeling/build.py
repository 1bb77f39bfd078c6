"""The two detectors of a run, as stock models with their weights."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from torch import nn

from eakd_det.checkpoint.checkpointer import load_strictly
from eakd_det.checkpoint.safe_pickle import load_pickle
from eakd_det.config.defaults import stock_config
from eakd_det.utils.errors import UserError

from .teacher.build import teacher_config


def check_datasets(cfg: CfgNode, keys: tuple[str, ...] = ("TRAIN", "TEST")) -> None:
    """Check that there are the datasets that DATASETS.TRAIN and DATASETS.TEST name.

    Raises:
        UserError: one is not registered.
    """
    for key in keys:
        for name in cfg.DATASETS[key]:
            if name not in DatasetCatalog:
                raise UserError(
                    f"DATASETS.{key}: there is no dataset {name!r}. Register it, or name its files "
                    "with --train-json and --train-images, --val-json and --val-images."
                )


@contextmanager
def no_data_in_words() -> Iterator[None]:
    """Say of a training loader that is built in the with-block why no image is left for it.

    Raises:
        UserError: none is.
    """
    try:
        yield
    except AssertionError as error:
        fault = re.fullmatch(r"No valid data found in (.+)\.|Dataset '(.+)' is empty!", str(error))
        if fault is None:
            raise
        names = (fault[1] or fault[2]).split(",")
        raise UserError(f"DATASETS.TRAIN: {_why_no_image(names)}") from error


def _why_no_image(names: Iterable[str]) -> str:
    annotations = [x.get("annotations") for name in names for x in DatasetCatalog.get(name)]
    empty = sum(not of for of in annotations)
    crowds = sum(bool(of) and all(a.get("iscrowd", 0) for a in of) for of in annotations)
    rest = len(annotations) - empty - crowds
    causes = {
        "without annotations": empty,
        "with crowds (iscrowd 1) alone": crowds,
        "with fewer than MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE keypoints": rest,
    }
    counts = ", ".join(f"{number} {cause}" for cause, number in causes.items() if number)
    return (
        f"of {', '.join(names)}, {len(annotations)} images ({counts or 'the file lists none'}), "
        "none can be trained on. Objects need iscrowd 0; DATALOADER.FILTER_EMPTY_ANNOTATIONS False "
        "also trains on images without objects."
    )


def check_proposals(cfg: CfgNode) -> None:
    """Check that MODEL.LOAD_PROPOSALS has files of arrays alone; Detectron2 unpickles them.

    Raises:
        UserError: one is broken, or holds anything else, which could run code.
    """
    if cfg.MODEL.LOAD_PROPOSALS:
        for path in (*cfg.DATASETS.PROPOSAL_FILES_TRAIN, *cfg.DATASETS.PROPOSAL_FILES_TEST):
            load_pickle(path)


def num_classes(cfg: CfgNode) -> tuple[str, int]:
    """The key that says how many classes a model has, and its value."""
    is_retina = "RetinaNet" in cfg.MODEL.META_ARCHITECTURE
    key = "RETINANET" if is_retina else "ROI_HEADS"
    return f"MODEL.{key}.NUM_CLASSES", cfg.MODEL[key].NUM_CLASSES


def load_student(cfg: CfgNode, weights: str) -> tuple[CfgNode, nn.Module]:
    """The plain student of a run: its stock config and model, with the weights of a checkpoint.

    Raises:
        UserError: the weights do not fit the stock model exactly.
    """
    cfg = stock_config(cfg)
    model = build_model(cfg)
    load_strictly(model, weights, key="MODEL.WEIGHTS")
    return cfg, model


def load_teacher(cfg: CfgNode) -> tuple[CfgNode, nn.Module]:
    """The teacher of a run: its stock config and model; raises as `load_student`."""
    teacher = comparable_teacher_config(cfg)
    model = build_model(teacher)
    load_strictly(model, cfg.TEACHER.WEIGHTS, key="TEACHER.WEIGHTS", side="teacher")
    return teacher, model


def comparable_teacher_config(cfg: CfgNode) -> CfgNode:
    """The stock config of a run's teacher, which can be evaluated on the student's data.

    Raises:
        UserError: there is no teacher, or it has another number of classes.
    """
    teacher = teacher_config(cfg)
    (key, there), (_, here) = num_classes(teacher), num_classes(cfg)
    if here != there:
        raise UserError(
            f"The teacher has {there} classes and the student {here}: on the student's data it "
            f"cannot be evaluated or drawn ({key})."
        )
    return teacher


def use_available_device(cfg: CfgNode) -> None:
    """Set MODEL.DEVICE to "cpu" where it says "cuda" and no GPU is there."""
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
