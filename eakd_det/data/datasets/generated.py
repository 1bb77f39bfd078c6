"""Datasets that are generated on first use."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from eakd_det.utils.files import read_json, write_json

SPLITS = ("train", "val")


def register_generated(name: str, classes: list[str], generate: Callable[[str], None]) -> None:
    """Register <name>_train and <name>_val under $DETECTRON2_DATASETS or ./datasets.

    Args:
        classes: names of the classes.
        generate: function that writes the dataset into a given folder, as `write_dataset` does.
    """
    _register(name, name, classes, generate)


def register_subset(
    name: str, source: str, classes: dict[str, str], generate: Callable[[str], None]
) -> None:
    """Register <name>_train and <name>_val: the images of a generated dataset with some classes.

    Objects of other classes have no box. The annotations are written on first use.

    Args:
        source: name of the generated dataset.
        classes: name of a class -> its name in the source, in the order of the classes.
        generate: function that generates the source, as that of `register_generated`.
    """

    def write(root: str) -> None:
        images = os.path.join(os.path.dirname(root), source)
        generate_once(images, generate)
        with folder_when_complete(root) as folder:
            os.makedirs(os.path.join(folder, "annotations"))
            for split in SPLITS:
                content = read_json(_annotations(images, split))
                selected = select_classes(content, classes)
                write_json(_annotations(folder, split), selected, indent=None)

    _register(name, source, list(classes), write)


def select_classes(content: dict[str, Any], classes: dict[str, str]) -> dict[str, Any]:
    """Return the content of a COCO file with some of its classes, under other names and ids.

    Args:
        content: of the file; all of its images are kept.
        classes: name of a class -> its name in the file, in the order of the new ids, 1 and on.
    """
    old = {category["name"]: category["id"] for category in content["categories"]}
    new = {old[theirs]: i for i, theirs in enumerate(classes.values(), start=1)}
    annotations = [
        {**annotation, "category_id": new[annotation["category_id"]]}
        for annotation in content["annotations"]
        if annotation["category_id"] in new
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, start=1)]
    return {**content, "annotations": annotations, "categories": categories}


def generate_once(root: str, generate: Callable[[str], None]) -> None:
    """Generate a dataset into the folder `root` unless it is there."""
    if not os.path.isdir(root):
        logging.getLogger(__name__).info("Generating %s into %s", os.path.basename(root), root)
        generate(root)


def _register(
    name: str, images: str, classes: Sequence[str], generate: Callable[[str], None]
) -> None:
    """Register both splits of a dataset, whose images are in the folder of `images`."""
    datasets = os.getenv("DETECTRON2_DATASETS", "datasets")
    root = os.path.join(datasets, name)

    def load(split: str, folder: str) -> list[dict]:
        generate_once(root, generate)
        return load_coco_json(_annotations(root, split), folder, dataset_name=f"{name}_{split}")

    for split in SPLITS:
        folder = os.path.join(datasets, images, split)
        DatasetCatalog.register(
            f"{name}_{split}", lambda split=split, folder=folder: load(split, folder)
        )
        MetadataCatalog.get(f"{name}_{split}").set(
            json_file=_annotations(root, split),
            image_root=folder,
            evaluator_type="coco",
            thing_classes=list(classes),
            thing_dataset_id_to_contiguous_id={i + 1: i for i in range(len(classes))},
        )


def _annotations(root: str, split: str) -> str:
    return os.path.join(root, "annotations", f"{split}.json")


@contextmanager
def folder_when_complete(root: str) -> Iterator[str]:
    """Yield a temporary folder, which is renamed to `root` after the with-block.

    If another process has made `root` meanwhile, with the same files, the folder is removed, as it
    is if the block raises.
    """
    parent = os.path.dirname(os.path.abspath(root))
    os.makedirs(parent, exist_ok=True)
    aside = tempfile.mkdtemp(prefix=".generating-", dir=parent)
    try:
        yield aside
        os.chmod(aside, 0o755)  # mkdtemp made it private
        try:
            os.rename(aside, root)
        except OSError:
            if not os.path.isdir(root):
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
