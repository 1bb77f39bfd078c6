"""eakd_det.export.graph, and its formats."""

import importlib.util
import json
import logging
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from eakd_det.export import FORMATS, check, export_graph
from eakd_det.export.check import Limits, check_detections
from eakd_det.export.onnx import NEEDED
from eakd_det.export.traceable import make_traceable
from eakd_det.utils.errors import UserError

from .runs import NAMES, load_student, save_run

has_onnx = all(map(importlib.util.find_spec, NEEDED))
needs_onnx = pytest.mark.skipif(not has_onnx, reason="requirements/export.txt is not installed")
BOTH = ["torchscript", pytest.param("onnx", marks=needs_onnx)]
CASES = [
    ("faster", "torchscript"),
    ("retina", "torchscript"),
    ("cascade", "torchscript"),
    pytest.param("mask", "torchscript", marks=pytest.mark.slow),
    pytest.param("faster", "onnx", marks=needs_onnx),
    pytest.param("retina", "onnx", marks=needs_onnx),
    pytest.param("mask", "onnx", marks=needs_onnx),
    pytest.param("cascade", "onnx", marks=[needs_onnx, pytest.mark.slow]),
]
KEYS = ("class_names", "input_format", "min_size_test", "max_size_test")


@pytest.fixture(autouse=True)
def short_measurement(monkeypatch):
    monkeypatch.setattr(check, "WARMUP", 0)
    monkeypatch.setattr(check, "RUNS", 2)


def configure(cfg, family):
    """Make a distilled Faster R-CNN, which pools as a sparse product, one of another family."""
    cfg.MODEL.ROI_HEADS.POOLER_BACKEND = "sparse"
    cfg.DISTILL.METHODS = ("DKD", "REVIEWKD")
    cfg.MODEL.MASK_ON = family == "mask"
    cfg.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV, cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 1, 8
    if family == "cascade":
        cfg.DISTILL.METHODS = ()
        cfg.MODEL.ROI_HEADS.NAME = "CascadeROIHeads"
        cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True
    return cfg


@pytest.fixture
def student(request, tmp_path):
    """Config of a family's student, and the folder of its run."""

    def student(family="faster", **options):
        if family == "retina":
            cfg = request.getfixturevalue("retina_cfg")
        else:
            cfg = configure(request.getfixturevalue("distill_cfg"), family)
        return cfg, save_run(cfg, tmp_path / "run", **options)

    return student


def properties(path):
    if path.endswith(".onnx"):
        import onnx

        return {p.key: p.value for p in onnx.load(path).metadata_props}
    extra = dict.fromkeys(KEYS, "")
    torch.jit.load(path, _extra_files=extra)
    return {key: value.decode() for key, value in extra.items()}


@pytest.mark.parametrize("family, format", CASES)
def test_a_graph_gives_the_detections_of_the_student(student, family, format, caplog, tmp_path):
    """Those of an evaluation, without postprocessing, on an image of another size."""
    caplog.set_level(logging.INFO)
    cfg, run = student(family)
    path = export_graph(run, str(tmp_path / "out"), format)
    assert os.listdir(tmp_path / "out") == [os.path.basename(path)] == [FORMATS[format].file]
    image = torch.randint(0, 256, (3, 75, 110), dtype=torch.uint8)
    found = FORMATS[format].load(path)(image)
    with torch.no_grad():
        (expected,) = load_student(cfg, run)([{"image": image}])
    expected = expected["instances"]
    assert len(expected) > 5 and len(found) == (4 if family == "mask" else 3)
    assert found[0].shape == (len(expected), 4)
    assert found[1].dtype == torch.int64 and torch.equal(found[1], expected.pred_classes)
    torch.testing.assert_close(found[0], expected.pred_boxes.tensor, atol=1e-2, rtol=0)
    torch.testing.assert_close(found[2], expected.scores, atol=1e-3, rtol=0)
    if family == "mask":
        assert found[3].shape == (len(expected), 28, 28) and 0 <= found[3].min() <= 1
    assert "5 generated scenes" in caplog.text and "the student in PyTorch" in caplog.text
    assert "of 64 x 85, 85 x 64; largest differences: boxes" in caplog.text
    assert "MB; a call takes one image, of any height and width" in caplog.text
    names = list(NAMES) if family != "retina" else [f"class {i}" for i in range(10)]
    (found_names, *others) = map(properties(path).get, KEYS)
    assert json.loads(found_names) == names and others == ["RGB", "64", "96"]


@pytest.mark.parametrize("format", BOTH)
def test_no_detections(student, format, caplog, tmp_path):
    """Are none in the graph; a warning says that this checks little."""
    _, run = student("mask")
    config = Path(run, "student.yaml")
    text = config.read_text().replace("SCORE_THRESH_TEST: 0.05", "SCORE_THRESH_TEST: 1.0")
    config.write_text(text)
    path = export_graph(run, str(tmp_path / "out"), format)
    assert "The student detects nothing on these images" in caplog.text
    found = FORMATS[format].load(path)(torch.zeros(3, 50, 60, dtype=torch.uint8))
    assert [tuple(x.shape) for x in found] == [(0, 4), (0,), (0,), (0, 28, 28)]


def test_a_graph_has_the_weights_of_the_student_alone(student, tmp_path):
    """The checkpoint of a run holds adapters, too."""
    cfg, run = student()
    assert "helpers" in torch.load(f"{run}/model_final.pth", weights_only=True)
    graph = torch.jit.load(export_graph(run, str(tmp_path / "out"), "torchscript"))
    expected = dict(load_student(cfg, run).named_parameters())
    found = dict(graph.named_parameters())
    assert found.keys() == {f"model.{name}" for name in expected}
    assert all(torch.equal(found[f"model.{name}"], expected[name]) for name in expected)


def test_a_wrong_graph_is_not_left(student, monkeypatch, tmp_path):
    """A file of other weights fails the check, and an earlier one stays as it is."""
    _, run = student()
    path = export_graph(run, str(tmp_path / "out"), "torchscript")
    before = Path(path).read_bytes()
    chosen = FORMATS["torchscript"]

    def write_another(adapter, image, path, metadata):
        bias = adapter.model.roi_heads.box_predictor.bbox_pred.bias
        bias.add_(0.02)
        chosen.write(adapter, image, path, metadata)
        bias.sub_(0.02)

    monkeypatch.setitem(FORMATS, "torchscript", chosen._replace(write=write_another))
    text = r"does not give .*\n  generated scene 1: class \d, score .*: the box differs by"
    with pytest.raises(UserError, match=text):
        export_graph(run, str(tmp_path / "out"), "torchscript")
    assert os.listdir(tmp_path / "out") == ["student.ts"] and Path(path).read_bytes() == before


def test_two_students_differ(distill_cfg, batch, tmp_path):
    """By the check itself, of models as they are."""
    runs = [save_run(distill_cfg, tmp_path / str(seed), seed) for seed in (1, 2)]
    image = batch[0]["image"]
    one, other = (make_traceable(load_student(distill_cfg, run), image) for run in runs)
    assert check_detections(one, one, {"image": image}, Limits(0.05, 100))[0] > 5
    with pytest.raises(UserError, match="image: class .*: the student alone has it"):
        check_detections(one, other, {"image": image}, Limits(0.05, 100))


def test_images_and_size(student, caplog, tmp_path):
    """The first five of a folder, and generated ones in place of those that are missing."""
    caplog.set_level(logging.INFO)
    _, run = student()
    (tmp_path / "photos").mkdir()
    for i in range(3):
        Image.effect_noise((120, 90), 80).save(tmp_path / "photos" / f"{i}.png")
    options = {"images": str(tmp_path / "photos"), "size": (48, 100)}
    export_graph(run, str(tmp_path / "out"), "torchscript", **options)
    assert "on an image of 48 x 100" in caplog.text and "Latency at 48 x 100" in caplog.text
    assert f"3 of {tmp_path / 'photos'} and 2 generated scenes" in caplog.text
    assert "5 images of 64 x 85, 85 x 64" in caplog.text
    with pytest.raises(UserError, match="there is no image file"):
        export_graph(run, str(tmp_path / "out"), "torchscript", images=str(tmp_path / "out"))


@pytest.mark.parametrize("key", ["TEST", "TRAIN"])
def test_the_images_of_the_run(distill_cfg, scenes, caplog, tmp_path, key):
    """Validation data, or else training data; one is cropped, for they have one size."""
    caplog.set_level(logging.INFO)
    distill_cfg.DATASETS.TEST = distill_cfg.DATASETS.TRAIN = ()
    distill_cfg.DATASETS[key] = ("not_registered", scenes[1])
    run = save_run(distill_cfg, tmp_path / "run")
    export_graph(run, str(tmp_path / "out"), "torchscript")
    assert f"3 of {scenes[1]} and 2 generated scenes" in caplog.text
