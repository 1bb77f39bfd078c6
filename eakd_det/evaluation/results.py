"""result.json of an output folder: what a detector has reached in the end."""

import json
import os
from typing import Any

from detectron2.config import CfgNode

from eakd_det.utils.files import write_atomically

NAME = "result.json"
METRICS = ("AP", "AP50", "AP75")


def write_result(cfg: CfgNode, results: dict[str, Any]) -> None:
    """Write AP, AP50 and AP75 of boxes on the first of DATASETS.TEST, in percent.

    Beside them stands "teacher_AP", where the teacher's own run has left one, else null. Where no
    boxes were evaluated nothing is written, nor a figure that an evaluator does not give.

    Args:
        cfg: of the run.
        results: of its evaluation, as Detectron2 gives them.
    """
    of_first = results if "bbox" in results else results.get(cfg.DATASETS.TEST[0], {})
    write_boxes(cfg.OUTPUT_DIR, of_first, teacher=cfg.TEACHER.WEIGHTS)


def write_boxes(output_dir: str, results: dict[str, Any], *, teacher: str) -> None:
    """`write_result` of a single test set.

    Args:
        output_dir: of the run.
        results: task -> metric -> value.
        teacher: its weights; empty if the run has none.
    """
    boxes = results.get("bbox")
    if boxes is None:
        return
    result = {name: boxes[name] for name in METRICS if name in boxes}
    result["teacher_AP"] = known_ap(teacher)
    with write_atomically(os.path.join(output_dir, NAME)) as f:
        json.dump(result, f, indent=2)


def known_ap(weights: str) -> float | None:
    """The AP of a run, by its last checkpoint; None for another one, or where nothing tells it."""
    folder, name = os.path.split(weights)
    path = os.path.join(folder, NAME)
    if name != "model_final.pth" or not os.path.exists(path):
        return None
    with open(path) as f:
        return json.load(f).get("AP")
