"""tools/analyze.py as a user calls it, on a tiny run."""

import json
import re

import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from eakd_det.config import stock_config

TEACHER = """
VERSION: 2
OUTPUT_DIR: teacher
MODEL: {NAME: resnet8}
DATASET: {NAME: digits, TRAIN_SIZE: 256}
SOLVER: {EPOCHS: 2, BATCH_SIZE: 16}
"""
STUDENT = """
_BASE_: teacher.yaml
OUTPUT_DIR: out/KD/pair
TEACHER: {CONFIG_FILE: teacher.yaml}
SOLVER: {EPOCHS: 3, BATCH_SIZE: 8, KEEP_CHECKPOINTS: 0}
DISTILL:
  METHODS: ("KD",)
"""
EA = """
_BASE_: student.yaml
OUTPUT_DIR: out/EA-KD/pair
DISTILL:
  EA: {ENABLED: True}
"""


@pytest.fixture
def runs(call_tool, tmp_path):
    """A teacher and two students with their checkpoints, in the folder of the tools."""
    for name, text in [("teacher", TEACHER), ("student", STUDENT), ("ea", EA)]:
        (tmp_path / f"{name}.yaml").write_text(text)
    for name in ("student", "ea"):
        code, out, err = call_tool("train_classifier.py", "--config-file", f"{name}.yaml")
        assert code == 0, out + err
    return tmp_path


@pytest.fixture
def analyze(call_tool):
    """Calls the tool; its output, and what it wrote, by name."""

    def call(*arguments, code=0):
        result, out, err = call_tool("analyze.py", *arguments)
        assert result == code, out + err
        return out if code == 0 else err

    return call


KD, EA_KD = "out/KD/pair", "out/EA-KD/pair"


def check_figures(folder, *names):
    """The JSON of each figure, which is there as PNG and SVG as well."""
    found = {path.name for path in folder.iterdir()}
    assert found == {f"{name}.{ending}" for name in names for ending in ("png", "svg", "json")}
    for name in names:
        assert min(Image.open(folder / f"{name}.png").size) > 300
    return [json.loads((folder / f"{name}.json").read_text()) for name in names]


def test_every_command_on_a_real_run(runs, analyze):
    results = [json.loads((runs / p / "result.json").read_text()) for p in (KD, EA_KD)]

    out = analyze("entropy-segments", KD, EA_KD)
    (numbers,) = check_figures(runs / KD / "analysis", "entropy_segments")
    assert re.search(r"EA-KD +teacher +[+-][\d.]+ \[", out) and "entropy_segments.svg" in out
    for name, result in zip(("KD", "EA-KD"), results, strict=True):
        for order in ("by_teacher_entropy", "by_student_entropy"):
            parts = numbers[order][name]
            assert sum(s["number"] for s in parts) == numbers["samples"] == 500
            for who, key in (("student", "top1"), ("teacher", "teacher_top1")):
                mean = sum(s["number"] * s[who][0] for s in parts) / 500
                assert mean == pytest.approx(result[key], abs=0.21)  # one image: the sums' order

    out = analyze("tsne", KD, EA_KD, "--num-images", "120", "--output-dir", "pictures/tsne")
    (numbers,) = check_figures(runs / "pictures" / "tsne", "tsne")
    assert list(numbers["networks"]) == ["KD", "EA-KD", "teacher"] and numbers["samples"] == 120
    assert f"{numbers['networks']['KD']['calinski_harabasz']:.4g}" in out

    checkpoints = [f"{run}/model_{i:07d}.pth" for run in (KD, EA_KD) for i in (31, 95)]
    options = ("--grid", "11", "--num-images", "64", "--output-dir", "pictures/landscape")
    out = analyze("landscape", *checkpoints, *options)
    names = ("landscape_contours", "landscape_surfaces", "landscape_area")
    numbers, grids, areas = check_figures(runs / "pictures" / "landscape", *names)
    assert list(grids) == list(numbers["networks"]) and numbers["images"] == 64
    assert list(grids)[1::3] == ["KD, iteration 96", "teacher"]
    assert set(areas["runs"]) == {"KD", "EA-KD"} and set(areas["runs"]["KD"]) == {"32", "96"}
    ((last,),) = (of for name, of in numbers["networks"].items() if name == "KD, iteration 96")
    assert areas["runs"]["KD"]["96"] == last["area"]
    assert f"{last['variance']:.4g}" in out

    out = analyze("dynamics", KD, f"EA={EA_KD}")
    numbers = json.loads((runs / KD / "analysis" / "dynamics.json").read_text())
    assert list(numbers) == ["KD", "EA"] and set(numbers["KD"]) == {"images"}
    assert numbers["EA"]["images"]["iteration"] == [19, 39, 59, 79]
    assert re.search(r"EA +images +[\d.]+ -> [\d.]+", out)


def test_mistakes_are_a_sentence(analyze, tmp_path):
    err = analyze("tsne", "nowhere", code=1)
    assert err.splitlines()[-1].startswith("error: There is no run folder or checkpoint 'nowhere'")
    (tmp_path / "empty").mkdir()
    err = analyze("dynamics", "empty", code=1)
    assert "error: There is no empty/metrics.json" in err and "Traceback" not in err
    err = analyze("landscape", "empty", "--grid", "12", code=2)
    assert "--grid: invalid choice: 12" in err


def test_detection(cli_cfg, analyze, tmp_path):
    """The weights of a student are random: what is drawn is not looked at here."""
    cfg, run = cli_cfg, tmp_path / "run"
    cfg.DATASETS.TEST = ("digits_det_train",)
    (run / "config.yaml").write_text(cfg.dump())
    student = build_model(stock_config(cfg))
    torch.save({"model": student.state_dict()}, run / "model_final.pth")

    out = analyze("detection", "KD=run", "--num-objects", "12")
    assert re.search(r"teacher +\d", out) and re.search(r"KD +\d", out)
    names = ("ap_segments", "entropy_segments", "tsne", "gallery")
    *_, tsne, gallery = check_figures(run / "analysis", *names)
    assert tsne["samples"] == 12 and gallery["student"] == "KD"

    data = tmp_path / "data" / "digits_det"
    files = ["--val-json", str(data / "annotations" / "train.json")]
    assert "belong together" in analyze("detection", "run", *files, code=1)
    images = ["--val-images", str(data / "train")]
    again = analyze("detection", "KD=run", "--num-objects", "12", *files, *images)
    assert again.split("\n\n")[0] == out.split("\n\n")[0]
