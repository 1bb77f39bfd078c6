"""result.json of an output folder, with the final figures of a detector."""

import hashlib
import json
import os
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from eakd_det.config.safe_yaml import read_yaml
from eakd_det.data.custom import CUSTOM_VAL, newest_val_copy
from eakd_det.utils.files import read_json, write_json

NAME = "result.json"
METRICS = ("AP", "AP50", "AP75")


def write_result(cfg: CfgNode, results: dict[str, Any]) -> None:
    """Write AP, AP50 and AP75 of boxes on the first of DATASETS.TEST, in percent, to result.json.

    "teacher_AP" is the AP of the teacher's own run if that is known and of the same test set and
    classes, else null; "test_set" is compared for that. Nothing is written if no boxes were
    evaluated, and figures that the evaluator does not return are left out.

    Args:
        cfg: config of the run.
        results: results of its evaluation, as Detectron2 returns them.
    """
    of_first = results if "bbox" in results else results.get(cfg.DATASETS.TEST[0], {})
    teacher = "" if cfg.DISTILL.CLASSES else cfg.TEACHER.WEIGHTS
    write_boxes(cfg.OUTPUT_DIR, of_first, teacher=teacher, dataset=cfg.DATASETS.TEST[0])


def write_boxes(output_dir: str, results: dict[str, Any], *, teacher: str, dataset: str) -> None:
    """Write result.json for a single test set; see `write_result`.

    Args:
        output_dir: folder of the run.
        results: task -> metric -> value.
        teacher: weights of the teacher; empty if the run has none.
        dataset: name of the test set; empty if it has none.
    """
    boxes = results.get("bbox")
    if boxes is None:
        return
    result = {name: boxes[name] for name in METRICS if name in boxes}
    path = MetadataCatalog.get(dataset).get("json_file", "") if dataset == CUSTOM_VAL else ""
    result["test_set"] = test_set = _digest(path) if path else dataset
    result["teacher_AP"] = known_ap(teacher, test_set)
    write_json(os.path.join(output_dir, NAME), result)


def known_ap(weights: str, test_set: str) -> float | None:
    """Look up the AP of a run by the path of its model_final.pth; None if it is not known.

    Args:
        test_set: of `identify_test_set`; the AP of a run on another one does not count.
    """
    folder, name = os.path.split(weights)
    result = read_json(os.path.join(folder, NAME)) if name == "model_final.pth" else {}
    if "AP" not in result or not test_set:
        return None
    return (
        result["AP"] if test_set == (result.get("test_set") or identify_test_set(folder)) else None
    )


def identify_test_set(folder: str) -> str:
    """Return what identifies the first test set of a run by its config.yaml; empty if it has none.

    It is the name of the dataset or, since that of --val-json is always the same, a digest of its
    images and boxes.
    """
    path = os.path.join(folder, "config.yaml")
    config = read_yaml(path) if os.path.exists(path) else {}
    name = next(iter(config.get("DATASETS", {}).get("TEST", ())), "")
    copy = newest_val_copy(os.path.join(folder, "annotations")) if name == CUSTOM_VAL else ""
    return _digest(copy) if copy else name


def _digest(path: str) -> str:
    """Return a digest of the images and boxes of a COCO file."""
    data = read_json(path)
    boxes = [[a["image_id"], a["category_id"], a.get("bbox")] for a in data["annotations"]]
    names = [[image["id"], image["file_name"]] for image in data["images"]]
    return hashlib.sha256(json.dumps([names, boxes]).encode()).hexdigest()[:12]
