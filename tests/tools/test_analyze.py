"""tools/analyze.py on a tiny run."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from PIL import Image

from eakd_det.config.defaults import stock_config
from eakd_det.utils.errors import UserError

TEACHER = """
VERSION: 2
OUTPUT_DIR: out/alone
MODEL: {NAME: resnet8}
DATASET: {NAME: digits, TRAIN_SIZE: 256}
SOLVER: {EPOCHS: 2, BATCH_SIZE: 16, KEEP_CHECKPOINTS: 0}
"""
STUDENT = """
_BASE_: teacher.yaml
OUTPUT_DIR: out/EA-KD
TEACHER: {CONFIG_FILE: teacher.yaml}
SOLVER: {EPOCHS: 3, BATCH_SIZE: 8}
DISTILL:
  METHODS: ("KD",)
  EA: {ENABLED: True}
"""


@pytest.fixture
def runs(call_tool, tmp_path, monkeypatch):
    """A teacher, trained on the way, and a student with its checkpoints; the working folder."""
    (tmp_path / "teacher.yaml").write_text(TEACHER)
    (tmp_path / "student.yaml").write_text(STUDENT)
    code, out, err = call_tool("train_classifier.py", "--config-file", "student.yaml")
    assert code == 0, out + err
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def analyze(monkeypatch, capsys):
    """Calls the tool in this process; its output."""
    path = Path(__file__).parents[2] / "tools" / "analyze.py"
    spec = importlib.util.spec_from_file_location("analyze", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["analyze.py", *arguments])
        tool.main(tool.parse_arguments())
        return capsys.readouterr().out

    return call


def check_figures(folder, *names):
    """The JSON of each figure, which is there as PNG and SVG as well."""
    found = {path.name for path in folder.iterdir()}
    assert found == {f"{name}.{ending}" for name in names for ending in ("png", "svg", "json")}
    for name in names:
        assert min(Image.open(folder / f"{name}.png").size) > 300
    return [json.loads((folder / f"{name}.json").read_text()) for name in names]


def test_every_command_on_a_real_run(runs, analyze):
    result = json.loads((runs / "out" / "EA-KD" / "result.json").read_text())

    out = analyze("entropy-segments", "out/EA-KD", "out/alone")
    (numbers,) = check_figures(runs / "out" / "EA-KD" / "analysis", "entropy_segments")
    assert re.search(r"EA-KD +teacher +[+-][\d.]+ \[", out) and "entropy_segments.svg" in out
    for order in ("by_teacher_entropy", "by_student_entropy"):
        parts = numbers[order]["EA-KD"]
        assert sum(s["number"] for s in parts) == numbers["samples"] == 500
        for who, key in (("student", "top1"), ("teacher", "teacher_top1")):
            mean = sum(s["number"] * s[who][0] for s in parts) / 500
            assert mean == pytest.approx(result[key], abs=0.21)  # one image, by rounding
    # The teacher beside itself has no gap.
    assert all(s["gap"][0] == 0 for s in numbers["by_teacher_entropy"]["alone"])

    out = analyze("weights", "out/EA-KD", "out/alone", "--output-dir", "pictures/weights")
    (numbers,) = check_figures(runs / "pictures" / "weights", "weights")
    alone = numbers["students"]["alone"]
    assert numbers["samples"] == 500 and f"{numbers['students']['EA-KD']['mean']:.4g}" in out
    assert alone["entropies"] == pytest.approx(1)  # the teacher beside itself

    options = ("--save-calibrated", "calibrated.pth", "--output-dir", "pictures/calibration")
    out = analyze("calibration", "out/EA-KD", *options)
    (numbers,) = check_figures(runs / "pictures" / "calibration", "calibration")
    of_student, of_teacher = numbers["networks"].values()
    assert of_student["top1"] == pytest.approx(result["top1"], abs=0.21)
    assert f"{of_teacher['temperature']:.3f} (" in out and out.rstrip().endswith("calibrated.pth")
    options = ("--config-file", "out/alone/config.yaml", "--output-dir", "pictures/calibrated")
    analyze("calibration", "C=calibrated.pth", *options)
    (numbers,) = check_figures(runs / "pictures" / "calibrated", "calibration")
    (of_saved,) = numbers["networks"].values()
    assert of_saved["temperature"] == pytest.approx(1, rel=1e-3)

    options = ("--num-images", "120", "--output-dir", "pictures/tsne")
    out = analyze("tsne", "out/EA-KD", "--teacher", "out/alone", *options)
    (numbers,) = check_figures(runs / "pictures" / "tsne", "tsne")
    assert list(numbers["networks"]) == ["EA-KD", "teacher"] and numbers["samples"] == 120
    assert f"{numbers['networks']['EA-KD']['calinski_harabasz']:.4g}" in out

    checkpoints = [f"X=out/EA-KD/model_{i:07d}.pth" for i in (31, 95)]
    options = ("--grid", "21", "--num-images", "32", "--output-dir", "pictures/landscape")
    out = analyze("landscape", *checkpoints, *options)
    names = ("landscape_contours", "landscape_surfaces", "landscape_area")
    numbers, grids, areas = check_figures(runs / "pictures" / "landscape", *names)
    assert numbers["compared"] == ["X, iteration 32", "X, iteration 96"]
    assert list(grids["networks"]) == ["X, iteration 32", "X, iteration 96", "teacher"]
    assert len(grids["networks"]["teacher"]["losses"]) == 21 and numbers["images"] == 32
    for iteration in ("32", "96"):
        coarse, fine = numbers["networks"][f"X, iteration {iteration}"]
        assert (coarse["points"], fine["points"]) == (121, 441)
        assert coarse["loss"] == fine["loss"]
        assert areas["runs"]["X"][iteration] == fine["area"]
        assert f"{coarse['variance']:.4g}" in out and f"{fine['variance']:.4g}" in out
    assert areas["teacher"] == numbers["networks"]["teacher"][1]["area"]

    out = analyze("dynamics", "EA=out/EA-KD", "--output-dir", "pictures/dynamics")
    (numbers,) = check_figures(runs / "pictures" / "dynamics", "dynamics")
    assert numbers["compared"] == list(numbers["runs"]) == ["EA"]
    assert list(numbers["runs"]["EA"]) == ["images"]
    assert numbers["runs"]["EA"]["images"]["iteration"] == [19, 39, 59, 79]
    assert re.search(r"EA +images +[\d.]+ -> [\d.]+", out)


def test_a_mistake_is_a_sentence(call_tool):
    code, _, err = call_tool("analyze.py", "tsne", "nowhere")
    assert code == 1 and "Traceback" not in err
    assert err.splitlines()[-1].startswith("error: There is no run folder or checkpoint 'nowhere'")


def test_detection(run_cfg, scenes, analyze, monkeypatch):
    """The weights of the student are random: what is drawn is not looked at here."""
    cfg, run = run_cfg, Path(run_cfg.OUTPUT_DIR)
    cfg.DATASETS.TEST = (scenes[0],)
    (run / "config.yaml").write_text(cfg.dump())
    student = build_model(stock_config(cfg))
    torch.save({"model": student.state_dict()}, run / "model_final.pth")

    out = analyze("detection", f"KD={run}", "--num-objects", "12")
    assert re.search(r"teacher +\d", out) and re.search(r"KD +\d", out)
    names = ("ap_segments", "entropy_segments", "weights", "detection_calibration")
    names += ("tsne", "gallery")
    *_, tsne, gallery = check_figures(run / "analysis", *names)
    assert tsne["samples"] == 12 and gallery["student"] == "KD"

    json_file = MetadataCatalog.get(scenes[0]).json_file
    files = ["--val-json", json_file]
    with pytest.raises(UserError, match="belong together"):
        analyze("detection", str(run), *files)
    monkeypatch.setattr("eakd_det.analysis.results.save", lambda *args: [])  # the same figures
    images = ["--val-images", str(Path(json_file).parents[1] / "train")]
    again = analyze("detection", f"KD={run}", "--num-objects", "12", *files, *images)
    assert again.splitlines()[:4] == out.splitlines()[:4]


def test_a_detector_is_sent_to_its_command(run_cfg, analyze):
    (Path(run_cfg.OUTPUT_DIR) / "config.yaml").write_text(run_cfg.dump())
    (Path(run_cfg.OUTPUT_DIR) / "model_final.pth").touch()
    with pytest.raises(UserError, match="config of a detector; its commands are: dynamics, det"):
        analyze("weights", run_cfg.OUTPUT_DIR)
