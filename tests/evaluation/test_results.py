import json

import pytest
from detectron2.data import MetadataCatalog

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
    assert written == {
        "AP": 30.0,
        "AP50": 50.0,
        "AP75": 35.0,
        "test_set": "val",
        "teacher_AP": None,
    }
    final = str(tmp_path / "model_final.pth")
    assert known_ap(final, "val") == 30.0
    assert known_ap(final, "test") is None and known_ap(final, "") is None
    assert known_ap(str(tmp_path / "model_0000099.pth"), "val") is None
    assert known_ap(str(tmp_path / "elsewhere" / "model_final.pth"), "val") is None
    cfg.TEACHER.WEIGHTS = final
    write_result(cfg, boxes(20.0) if len(names) == 1 else several)
    assert json.loads((tmp_path / "result.json").read_text())["teacher_AP"] == 30.0
    cfg.DISTILL.CLASSES = ("person",)  # of which the teacher's run does not have the AP
    write_result(cfg, boxes(20.0) if len(names) == 1 else several)
    assert json.loads((tmp_path / "result.json").read_text())["teacher_AP"] is None


def test_an_evaluator_may_give_fewer_figures(distill_cfg, tmp_path):
    distill_cfg.OUTPUT_DIR, distill_cfg.DATASETS.TEST = str(tmp_path), ("val",)
    write_result(distill_cfg, {"bbox": {"AP": 12.0, "recall": 40.0}})
    written = json.loads((tmp_path / "result.json").read_text())
    assert written == {"AP": 12.0, "test_set": "val", "teacher_AP": None}


def test_data_of_a_command_line_are_known_by_their_copy(distill_cfg, tmp_path):
    """They have one name in all runs."""
    cfg = distill_cfg
    cfg.DATASETS.TEST = ("custom_val",)
    cfg.TEACHER.WEIGHTS = str(tmp_path / "teacher" / "model_final.pth")
    for folder, copy in (
        ("teacher", "val-a1.json"),
        ("same", "val-a1.json"),
        ("other", "val-b2.json"),
    ):
        MetadataCatalog.pop("custom_val", None)
        MetadataCatalog.get("custom_val").json_file = str(tmp_path / folder / copy)
        cfg.OUTPUT_DIR = str(tmp_path / folder)
        write_result(cfg, boxes(40.0))
    MetadataCatalog.pop("custom_val")
    known = [json.loads((tmp_path / x / "result.json").read_text()) for x in ("same", "other")]
    assert [result["teacher_AP"] for result in known] == [40.0, None]
