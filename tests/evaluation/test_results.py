import json

import pytest

from eakd_det.evaluation.results import known_ap, write_result


def boxes(ap):
    return {"bbox": {"AP": ap, "AP50": ap + 20, "AP75": ap + 5, "APs": 1.0}}


@pytest.mark.parametrize("names", [("val",), ("val", "test")])
def test_the_first_test_set_counts_and_a_teacher_is_known_by_its_last_weights(
    distill_cfg, tmp_path, names
):
    cfg = distill_cfg
    cfg.DATASETS.TEST = names
    cfg.OUTPUT_DIR = str(tmp_path)
    several = {"test": boxes(50.0), "val": boxes(30.0)}
    write_result(cfg, boxes(30.0) if len(names) == 1 else several)
    written = json.loads((tmp_path / "result.json").read_text())
    assert written == {"AP": 30.0, "AP50": 50.0, "AP75": 35.0, "teacher_AP": None}
    assert known_ap(str(tmp_path / "model_0000099.pth")) is None
    assert known_ap(str(tmp_path / "elsewhere" / "model_final.pth")) is None
    cfg.TEACHER.WEIGHTS = str(tmp_path / "model_final.pth")
    write_result(cfg, boxes(20.0) if len(names) == 1 else several)
    assert json.loads((tmp_path / "result.json").read_text())["teacher_AP"] == 30.0
    cfg.DISTILL.CLASSES = ("person",)  # of which the teacher's run does not have the AP
    write_result(cfg, boxes(20.0) if len(names) == 1 else several)
    assert json.loads((tmp_path / "result.json").read_text())["teacher_AP"] is None


def test_an_evaluator_may_give_fewer_figures(distill_cfg, tmp_path):
    distill_cfg.OUTPUT_DIR = str(tmp_path)
    write_result(distill_cfg, {"bbox": {"AP": 12.0, "recall": 40.0}})
    written = json.loads((tmp_path / "result.json").read_text())
    assert written == {"AP": 12.0, "teacher_AP": None}
