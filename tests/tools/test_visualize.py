import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import BoxMode
from PIL import Image

from eakd_det.checkpoint.checkpointer import SafeCheckpointer
from eakd_det.config.defaults import add_distill_config, stock_config
from eakd_det.data.custom import prepare_custom_data, use_custom_data
from eakd_det.evaluation.detections import read_detections
from eakd_det.evaluation.pictures import draw_run
from eakd_det.utils.drawing import MIN_WIDTH
from eakd_det.utils.visualizer import GAP, TITLE_HEIGHT, draw_side_by_side, draw_weights
from tests.data.test_custom import make


@pytest.fixture
def metadata():
    return Metadata(thing_classes=["cat", "dog"], thing_dataset_id_to_contiguous_id={3: 0, 7: 1})


@pytest.fixture
def detections(tmp_path, metadata):
    found = [
        {"image_id": 5, "category_id": 7, "bbox": [10, 12, 20, 8], "score": 0.9},
        {"image_id": 5, "category_id": 3, "bbox": [0, 0, 4, 4], "score": 0.2},
    ]
    (tmp_path / "results.json").write_text(json.dumps(found))
    return read_detections(str(tmp_path / "results.json"), metadata)


def test_read_detections(detections):
    [(image_id, found)] = detections.items()
    assert image_id == 5
    assert found.pred_boxes.tensor.tolist() == [[10, 12, 30, 20], [0, 0, 4, 4]]
    assert found.pred_classes.tolist() == [1, 0]
    assert found.scores.tolist() == [0.9, 0.2]


def _draw(tmp_path, metadata, detections, threshold):
    Image.new("RGB", (60, 30)).save(tmp_path / "scene.png")
    truth = [{"bbox": [10, 12, 20, 8], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}]
    scene = {"file_name": str(tmp_path / "scene.png"), "image_id": 5, "annotations": truth}
    columns = {"teacher": detections, "student": {}}
    path = str(tmp_path / "sheet.png")
    draw_side_by_side(path, [scene], metadata, columns, threshold=threshold)
    return np.asarray(Image.open(path))


def _panels(sheet):
    return [
        sheet[TITLE_HEIGHT:-GAP, i * (MIN_WIDTH + GAP) : i * (MIN_WIDTH + GAP) + MIN_WIDTH]
        for i in range(3)
    ]


def test_draws_a_column_each(tmp_path, metadata, detections):
    truth, teacher, student = _panels(_draw(tmp_path, metadata, detections, 0.5))
    assert truth.any()
    assert teacher.any()
    assert not student.any(), "no detections: the black scene stays black"


def test_threshold_counts(tmp_path, metadata, detections):
    _, some, _ = _panels(_draw(tmp_path, metadata, detections, 0.5))
    _, more, _ = _panels(_draw(tmp_path, metadata, detections, 0.1))
    assert not np.array_equal(some, more)


def test_weights_are_drawn_in_their_order(monkeypatch):
    seen = []

    def write_below(panel, lines):
        seen.append(lines)
        return panel

    boxes = []

    def draw(image, of_panel, classes, numbers):
        boxes.append((of_panel.tolist(), numbers))
        return image

    monkeypatch.setattr("eakd_det.utils.visualizer.draw_boxes", draw)
    monkeypatch.setattr("eakd_det.utils.visualizer._write_below", write_below)
    generator = torch.Generator().manual_seed(0)
    weight = torch.tensor([0.5, 2.0, 0.1, 1.0])
    student, teacher = torch.rand(2, 4, 3, generator=generator).softmax(dim=2)
    names = ["cat", "dog", "background"]
    image, all_boxes = np.zeros((40, 60, 3), dtype=np.uint8), np.arange(16).reshape(4, 4)
    draw_weights(image, all_boxes, weight, student, teacher, names, number=2)
    assert boxes == [
        ([[4, 5, 6, 7], [12, 13, 14, 15]], ["1", "2"]),
        ([[0, 1, 2, 3], [8, 9, 10, 11]], ["1", "2"]),
    ]
    for lines, order in zip(seen, ([1, 3], [0, 2]), strict=True):
        for place, (line, i) in enumerate(zip(lines, order, strict=True), 1):
            says = [f"{names[x[i].argmax()]}: {100 * x[i].max():.0f} %" for x in (teacher, student)]
            assert line == f"{place}: {weight[i]:.2f}   T {says[0]}   S {says[1]}"


def test_picture_of_the_weights():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(2, 9, 3, generator=generator).softmax(dim=2)
    boxes = np.tile(np.array([[5, 5, 30, 20]]), (9, 1))
    picture = draw_weights(
        np.zeros((30, 60, 3), dtype=np.uint8), boxes, torch.rand(9), *scores, ["a", "b", "c"]
    )
    assert picture.shape[1] == 2 * (MIN_WIDTH + GAP)
    assert (picture[-30:] > 200).any(), "the lines below are written"


def test_a_plain_run_has_its_own_name_and_its_checked_data(stock_cfg, tmp_path, monkeypatch):
    """A teacher's run is no student; its --val-json need not be named again."""
    cfg = stock_cfg
    add_distill_config(cfg)
    cfg.OUTPUT_DIR = str(tmp_path / "Teacher-R18")
    source = make(tmp_path / "own")
    use_custom_data(cfg, prepare_custom_data(f"{cfg.OUTPUT_DIR}/annotations", val=source))
    SafeCheckpointer(build_model(stock_config(cfg)), cfg.OUTPUT_DIR).save("model_final")
    (tmp_path / "run.yaml").write_text(cfg.dump())
    DatasetCatalog.remove("custom_val")  # as in another process
    MetadataCatalog.remove("custom_val")
    tool = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "visualize.py"))
    drawn = []

    def draw(path, scenes, metadata, detections, **options):
        drawn.append((scenes[0]["image_id"], list(detections)))

    monkeypatch.setattr("eakd_det.evaluation.pictures.draw_side_by_side", draw)
    monkeypatch.setattr(sys, "argv", ["visualize.py", "--config-file", str(tmp_path / "run.yaml")])
    draw_run(tool["parse_arguments"]())
    assert sorted(drawn) == [(1, ["Teacher-R18"]), (2, ["Teacher-R18"])]


def test_tool(cli_cfg, call_tool, tmp_path):
    """Pictures of the validation set and of own data; mistakes are told."""
    cli_cfg.DATASETS.TEST = ("digits_det_val",)
    (tmp_path / "run.yaml").write_text(cli_cfg.dump())
    config = ("--config-file", str(tmp_path / "run.yaml"))
    code, _, err = call_tool("visualize.py", *config)
    assert code == 1
    assert f"error: {cli_cfg.OUTPUT_DIR} holds no checkpoint" in err
    model = build_model(stock_config(cli_cfg))
    SafeCheckpointer(model, cli_cfg.OUTPUT_DIR).save("model_final")
    code, out, err = call_tool("visualize.py", *config, "--threshold", "0")
    assert code == 0, out + err
    assert sorted(out.split()) == sorted(map(str, (tmp_path / "run" / "pictures").iterdir()))
    for path in out.split():
        assert Image.open(path).size[0] == 3 * (MIN_WIDTH + GAP)
    categories = [{"id": i, "name": str(i)} for i in range(1, 11)]
    path, folder = make(tmp_path / "own", categories=categories)
    own = ("--val-json", path, "--val-images", folder, "--output", str(tmp_path / "pictures"))
    code, out, err = call_tool("visualize.py", *config, *own, "--num-images", "1")
    assert code == 0, out + err
    assert len(list((tmp_path / "pictures").iterdir())) == 1
