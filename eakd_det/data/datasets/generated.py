"""Datasets that are generated on first use."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json


def register_generated(name: str, classes: list[str], generate: Callable[[str], None]) -> None:
    """Register <name>_train and <name>_val under $DETECTRON2_DATASETS or ./datasets.

    Args:
        classes: names of the classes.
        generate: function that writes the dataset into a given folder, as `write_dataset` does.
    """
    root = os.path.join(os.getenv("DETECTRON2_DATASETS", "datasets"), name)

    def load(split: str) -> list[dict]:
        if not os.path.isdir(root):
            logging.getLogger(__name__).info("Generating %s into %s", name, root)
            generate(root)
        paths = os.path.join(root, "annotations", f"{split}.json"), os.path.join(root, split)
        return load_coco_json(*paths, dataset_name=f"{name}_{split}")

    for split in ("train", "val"):
        DatasetCatalog.register(f"{name}_{split}", lambda split=split: load(split))
        MetadataCatalog.get(f"{name}_{split}").set(
            json_file=os.path.join(root, "annotations", f"{split}.json"),
            image_root=os.path.join(root, split),
            evaluator_type="coco",
            thing_classes=classes,
            thing_dataset_id_to_contiguous_id={i + 1: i for i in range(len(classes))},
        )


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
