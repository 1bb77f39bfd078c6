import json

import pytest
from detectron2.data import MetadataCatalog

from eakd_det.evaluation.results import identify_test_set, known_ap, write_result


def boxes_of(ap):
    return {"bbox": {"AP": ap, "AP50": ap + 20, "AP75": ap + 5, "APs": 1.0}}


@pytest.mark.parametrize("names", [("val",), ("val", "test")])
def test_the_first_test_set_counts_and_a_teacher_is_known_by_its_last_weights(
    distill_cfg, tmp_path, names
):
    cfg = distill_cfg
    cfg.DATASETS.TEST = names
    cfg.OUTPUT_DIR = str(tmp_path)
    several = {"test": boxes_of(50.0), "val": boxes_of(30.0)}
    write_result(cfg, boxes_of(30.0) if len(names) == 1 else several)
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
    write_result(cfg, boxes_of(20.0) if len(names) == 1 else several)
    assert json.loads((tmp_path / "result.json").read_text())["teacher_AP"] == 30.0
    cfg.DISTILL.CLASSES = ("person",)  # of which the teacher's run does not have the AP
    write_result(cfg, boxes_of(20.0) if len(names) == 1 else several)
    assert json.loads((tmp_path / "result.json").read_text())["teacher_AP"] is None


def test_an_evaluator_may_give_fewer_figures(distill_cfg, tmp_path):
    distill_cfg.OUTPUT_DIR, distill_cfg.DATASETS.TEST = str(tmp_path), ("val",)
    write_result(distill_cfg, {"bbox": {"AP": 12.0, "recall": 40.0}})
    written = json.loads((tmp_path / "result.json").read_text())
    assert written == {"AP": 12.0, "test_set": "val", "teacher_AP": None}


@pytest.fixture
def own_data(distill_cfg, tmp_path):
    """Write result.json of a run on its own --val-json, of N images."""
    distill_cfg.DATASETS.TEST = ("custom_val",)
    distill_cfg.TEACHER.WEIGHTS = str(tmp_path / "teacher" / "model_final.pth")

    def write(name, images):
        distill_cfg.OUTPUT_DIR = str(tmp_path / name)
        folder = tmp_path / name / "annotations"
        folder.mkdir(parents=True)
        (folder.parent / "config.yaml").write_text(distill_cfg.dump())
        path = folder / f"val-{name}.json"
        numbers = range(images)
        boxes = [{"image_id": i, "category_id": 1, "bbox": [i, 0, 9, 9]} for i in numbers]
        names = [{"id": i, "file_name": f"{i}.png"} for i in numbers]
        path.write_text(json.dumps({"images": names, "annotations": boxes}))
        MetadataCatalog.pop("custom_val", None)
        MetadataCatalog.get("custom_val").json_file = str(path)
        write_result(distill_cfg, boxes_of(40.0))
        return folder.parent / "result.json"

    yield write
    MetadataCatalog.pop("custom_val", None)


@pytest.mark.parametrize("is_noted", [True, False])
def test_data_of_a_command_line_are_known_by_their_boxes(own_data, is_noted):
    """They have one name in all runs."""
    teacher = own_data("teacher", 3)
    if not is_noted:  # as in earlier versions
        result = json.loads(teacher.read_text())
        del result["test_set"]
        teacher.write_text(json.dumps(result))
    for name, images, ap in (("same", 3, 40.0), ("other", 4, None)):
        path = own_data(name, images)
        result = json.loads(path.read_text())
        assert result["teacher_AP"] == ap
        assert identify_test_set(str(path.parent)) == result["test_set"]


def test_a_run_without_a_test_set(distill_cfg, tmp_path):
    assert identify_test_set(str(tmp_path)) == ""
    distill_cfg.DATASETS.TEST = ()
    (tmp_path / "config.yaml").write_text(distill_cfg.dump())
    assert identify_test_set(str(tmp_path)) == ""


def test_a_registered_dataset_is_known_by_its_name(distill_cfg, tmp_path):
    """Also if its name begins like those of a command line's data."""
    distill_cfg.OUTPUT_DIR, distill_cfg.DATASETS.TEST = str(tmp_path), ("custom_parts",)
    write_result(distill_cfg, boxes_of(1.0))
    assert json.loads((tmp_path / "result.json").read_text())["test_set"] == "custom_parts"
