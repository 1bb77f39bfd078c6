"""result.json of an output folder, with the final figures of a detector."""

import os
from typing import Any

from detectron2.config import CfgNode

from eakd_det.utils.files import read_json, write_json

NAME = "result.json"
METRICS = ("AP", "AP50", "AP75")


def write_result(cfg: CfgNode, results: dict[str, Any]) -> None:
    """Write AP, AP50 and AP75 of boxes on the first of DATASETS.TEST, in percent, to result.json.

    "teacher_AP" is the AP of the teacher's own run if that is known and of the same classes, else
    null. Nothing is written if no boxes were evaluated, and figures that the evaluator does not
    return are left out.

    Args:
        cfg: config of the run.
        results: results of its evaluation, as Detectron2 returns them.
    """
    of_first = results if "bbox" in results else results.get(cfg.DATASETS.TEST[0], {})
    write_boxes(
        cfg.OUTPUT_DIR, of_first, teacher="" if cfg.DISTILL.CLASSES else cfg.TEACHER.WEIGHTS
    )


def write_boxes(output_dir: str, results: dict[str, Any], *, teacher: str) -> None:
    """Write result.json for a single test set; see `write_result`.

    Args:
        output_dir: folder of the run.
        results: task -> metric -> value.
        teacher: weights of the teacher; empty if the run has none.
    """
    boxes = results.get("bbox")
    if boxes is None:
        return
    result = {name: boxes[name] for name in METRICS if name in boxes}
    result["teacher_AP"] = known_ap(teacher)
    write_json(os.path.join(output_dir, NAME), result)


def known_ap(weights: str) -> float | None:
    """Look up the AP of a run by the path of its model_final.pth; None if it is not known."""
    folder, name = os.path.split(weights)
    return read_json(os.path.join(folder, NAME)).get("AP") if name == "model_final.pth" else None
