"""Checks of the datasets that a config names."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from eakd_det.checkpoint.safe_pickle import load_pickle
from eakd_det.utils.errors import UserError


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
