"""A user's own COCO-format data: checked, completed and registered."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import portalocker
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from eakd_det.utils.errors import UserError
from eakd_det.utils.files import make_folder, read_json, write_json

from .coco_check import check_coco
from .ids import ORIGINAL, original_ids
from .image_files import DAY
from .masks import has_rle

CUSTOM = "custom_"  # prefix of the datasets' names, before train or val
CUSTOM_VAL = f"{CUSTOM}val"
FORMAT = 4  # version of the checked copies; copies of another version are made again


@dataclass(frozen=True)
class CustomData:
    """A checked dataset.

    Attributes:
        name: name under which it is registered.
        json_file: completed copy of the user's file.
        image_root: folder of the images.
        data: content of the copy.
    """

    name: str
    json_file: str
    image_root: str
    data: dict[str, Any]

    @property
    def classes(self) -> list[tuple[Any, str]]:
        """Ids (the user's) and names of the categories, in the order of Detectron2's classes."""
        by_id = sorted(self.data["categories"], key=lambda c: c["id"])
        return [(c.get(ORIGINAL, c["id"]), c["name"]) for c in by_id]

    @property
    def notes(self) -> list[str]:
        """Sentences about the differences between the copy and the user's file."""
        return [f"{self.name}: {note}" for note in self.data["notes"]]


def prepare_custom_data(
    folder: str,
    *,
    train: tuple[str, str] | None = None,
    val: tuple[str, str] | None = None,
    masks: bool = False,
    clip: bool = False,
    again: bool = False,
) -> dict[str, CustomData]:
    """Check COCO-format files and write completed copies; copies of unchanged files are reused.

    Processes that use the same folder wait for each other.

    Args:
        folder: folder of the copies.
        train, val: JSON file and folder of its images, or None.
        masks: the run trains masks (MODEL.MASK_ON).
        clip: clip boxes to their images.
        again: also check files that have not changed.

    Returns:
        The datasets under "train" and "val", for those that are given.

    Raises:
        UserError: a file cannot be trained on, or the two have different categories.
    """
    sources = {"train": train, "val": val}
    found = {
        split: _prepare(split, *source, folder, again, masks=masks, clip=clip)
        for split, source in sources.items()
        if source is not None
    }
    if len({tuple(custom.classes) for custom in found.values()}) > 1:
        differences = [
            f"  {split}: {', '.join(f'{i} {name}' for i, name in custom.classes)}"
            for split, custom in found.items()
        ]
        text = "\n".join(differences)
        raise UserError(f"Training and validation data must have the same categories:\n{text}")
    return found


def use_custom_data(cfg: CfgNode, found: dict[str, CustomData]) -> None:
    """Register the datasets and set the datasets and the number of classes of a config to them."""
    for custom in found.values():
        _register(custom)
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = len(custom.classes)
    if cfg.MODEL.MASK_ON and "train" in found and has_rle(found["train"].data["annotations"]):
        cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.DATASETS.TRAIN = (found["train"].name,) if "train" in found else cfg.DATASETS.TRAIN
    cfg.DATASETS.TEST = (found["val"].name,) if "val" in found else ()


def use_val_data(
    cfg: CfgNode, run_folder: str, sources: dict[str, tuple[str, str]], *, clip: bool
) -> None:
    """Evaluate a run on the data that a command line names, or on its own.

    Args:
        cfg: config of the run, whose DATASETS.TEST is set to the named data.
        run_folder: holds the checked copies of its data.
        sources: "val" -> JSON file and folder of its images; empty: the run's own data.
        clip: clip boxes to their images.
    """
    folder = os.path.join(run_folder, "annotations")
    if sources:
        masks = cfg.MODEL.MASK_ON
        use_custom_data(cfg, prepare_custom_data(folder, **sources, masks=masks, clip=clip))
    else:
        register_checked_copy(cfg, folder)


def register_checked_copy(cfg: CfgNode, folder: str) -> None:
    """Register the checked copy of the data that a run was evaluated on.

    Nothing is registered if DATASETS.TEST names other datasets, or the images no longer exist.

    Args:
        cfg: config of the run.
        folder: folder of its copies, of which the newest is used.
    """
    if CUSTOM_VAL not in cfg.DATASETS.TEST or CUSTOM_VAL in DatasetCatalog:
        return
    if path := newest_val_copy(folder):
        data = read_json(path)
        if os.path.isdir(data.get("image_root", "")):
            _register(CustomData(CUSTOM_VAL, path, data["image_root"], data))


def newest_val_copy(folder: str) -> str:
    """Return the path of the newest checked copy of --val-json; empty if there is none."""
    copies = sorted(Path(folder).glob("val-*.json"), key=lambda path: path.stat().st_mtime)
    return str(copies[-1]) if copies else ""


def _register(custom: CustomData) -> None:
    if custom.name in DatasetCatalog:
        DatasetCatalog.remove(custom.name)
        MetadataCatalog.remove(custom.name)
    register_coco_instances(custom.name, {}, custom.json_file, custom.image_root)
    MetadataCatalog.get(custom.name).set(
        thing_classes=[name for _, name in custom.classes],
        original_ids=original_ids(custom.data),
    )


def _prepare(
    split: str, json_file: str, image_root: str, folder: str, again: bool, **options: bool
) -> CustomData:
    if not os.path.isfile(json_file):
        raise UserError(f"--{split}-json: the file {json_file} does not exist.")
    if not os.path.isdir(image_root):
        raise UserError(f"--{split}-images: the folder {image_root} does not exist.")
    status = os.stat(json_file)
    identity = [os.path.abspath(json_file), os.path.abspath(image_root)]
    identity += [str(x) for x in (status.st_mtime_ns, status.st_size, FORMAT, options)]
    digest = hashlib.sha256("\n".join(identity).encode()).hexdigest()[:12]
    path = os.path.join(folder, f"{split}-{digest}.json")
    make_folder(folder)
    with portalocker.Lock(os.path.join(folder, ".lock"), timeout=DAY):  # others find the copy
        data = {} if again else read_json(path)
        if not data:
            data = check_coco(json_file, image_root, again=again, **options)
            write_json(path, data, indent=None)
    return CustomData(f"{CUSTOM}{split}", path, image_root, data)
