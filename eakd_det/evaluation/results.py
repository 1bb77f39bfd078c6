"""result.json of an output folder, with the final figures of a detector."""

import os
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from eakd_det.data.custom import CUSTOM
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
    result["test_set"] = test_set = _identity(dataset)
    result["teacher_AP"] = known_ap(teacher, test_set)
    write_json(os.path.join(output_dir, NAME), result)


def known_ap(weights: str, test_set: str) -> float | None:
    """Look up the AP of a run by the path of its model_final.pth; None if it is not known.

    Args:
        test_set: as result.json has it; the AP of a run on another one does not count.
    """
    folder, name = os.path.split(weights)
    result = read_json(os.path.join(folder, NAME)) if name == "model_final.pth" else {}
    return result.get("AP") if test_set and result.get("test_set") == test_set else None


def _identity(dataset: str) -> str:
    """Return the name of a dataset; of --val-json, whose name is always the same, its checked copy.

    The name of that file has a digest of the data.
    """
    if not dataset.startswith(CUSTOM):
        return dataset
    return os.path.basename(MetadataCatalog.get(dataset).json_file)
