"""Checks of the registered datasets of a config."""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts

from eakd_det.checkpoint.safe_pickle import load_pickle
from eakd_det.utils.errors import UserError


def check_datasets(cfg: CfgNode, keys: tuple[str, ...] = ("TRAIN", "TEST")) -> None:
    """Check that the datasets of DATASETS.TRAIN and DATASETS.TEST are registered and have files.

    A dataset that is generated on first use is generated here.

    Raises:
        UserError: one is not registered, or its annotations are missing.
    """
    for key in keys:
        for name in cfg.DATASETS[key]:
            if name not in DatasetCatalog:
                raise UserError(
                    f"DATASETS.{key}: no dataset {name!r} is registered. Register it, or give its "
                    "files with --train-json and --train-images, --val-json and --val-images."
                )
            _check_annotations(f"DATASETS.{key}", name)


def _check_annotations(key: str, name: str) -> None:
    json_file = MetadataCatalog.get(name).get("json_file", os.curdir)
    if "://" in json_file or os.path.exists(json_file):  # remote files are read once, later
        return
    try:
        DatasetCatalog.get(name)  # generates it
    except FileNotFoundError as error:
        raise UserError(
            f"{key}: {name} has no file {error.filename}. The datasets of Detectron2 are in "
            "$DETECTRON2_DATASETS, or ./datasets if that is not set (docs/datasets.md)."
        ) from error


def count_training_images(cfg: CfgNode) -> int:
    """Return the number of images that Detectron2's training loader takes from DATASETS.TRAIN.

    The messages of loading are not logged, since the loader logs them again.

    Raises:
        UserError: see `check_datasets`, or no image can be trained on.
    """
    check_datasets(cfg, ("TRAIN",))
    needed = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with explain_no_images():
            records = get_detection_dataset_dicts(
                cfg.DATASETS.TRAIN,
                filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
                min_keypoints=needed,
                check_consistency=False,
            )
    finally:
        logging.disable(disabled)
    return len(records)


@contextmanager
def explain_no_images() -> Iterator[None]:
    """Explain the error of a training loader, built in the with-block, that has no images.

    Raises:
        UserError: no image of the datasets can be trained on.
    """
    try:
        yield
    except AssertionError as error:
        found = re.fullmatch(r"No valid data found in (.+)\.|Dataset '(.+)' is empty!", str(error))
        if found is None:
            raise
        names = (found[1] or found[2]).split(",")
        raise UserError(f"DATASETS.TRAIN: {_count_causes(names)}") from error


def _count_causes(names: Iterable[str]) -> str:
    annotations = [x.get("annotations") for name in names for x in DatasetCatalog.get(name)]
    empty = sum(not of for of in annotations)
    crowds = sum(bool(of) and all(a.get("iscrowd", 0) for a in of) for of in annotations)
    rest = len(annotations) - empty - crowds
    causes = {
        "without annotations": empty,
        "with only crowds (iscrowd 1)": crowds,
        "with fewer than MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE keypoints": rest,
    }
    counts = ", ".join(f"{number} {cause}" for cause, number in causes.items() if number)
    return (
        f"none of the {len(annotations)} images of {', '.join(names)} can be trained on "
        f"({counts or 'the file lists none'}). Objects need iscrowd 0; "
        "DATALOADER.FILTER_EMPTY_ANNOTATIONS False also trains on images without objects."
    )


def check_proposals(cfg: CfgNode) -> None:
    """Check that the proposal files of a config hold only arrays, since Detectron2 unpickles them.

    Raises:
        UserError: a file is broken, or holds other objects, which could run code.
    """
    if cfg.MODEL.LOAD_PROPOSALS:
        for path in (*cfg.DATASETS.PROPOSAL_FILES_TRAIN, *cfg.DATASETS.PROPOSAL_FILES_TEST):
            load_pickle(path)
