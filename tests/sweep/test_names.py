import csv
import json
import logging
from pathlib import Path

import pytest

from classification.runs import Classifiers
from eakd_det.distillers import EA_MODES
from eakd_det.report.sweeps import read_sweeps
from eakd_det.sweep.detectors import Detectors
from eakd_det.sweep.grid import plan
from eakd_det.sweep.names import MODES, addition, base_of, method_name, method_of
from eakd_det.sweep.tables import write_tables

ROOT = Path(__file__).parents[2]
CLASSIFIERS, DETECTORS = Classifiers(), Detectors()
NESTED = [
    path
    for path in sorted((ROOT / "configs").glob("*/*/*.yaml"))
    if path.parts[-3] in ("CIFAR100", "FashionMNIST", "Glyphs100", "ImageNet")
    and path.parent.name not in ("methods", "pairs")
]


@pytest.fixture(autouse=True)
def root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_nested_configs_are_called_as_their_paths():
    assert len(NESTED) > 100
    for path in NESTED:
        names = CLASSIFIERS.names(path, CLASSIFIERS.load(str(path), []))
        assert names == (path.parent.name, path.stem)


@pytest.mark.parametrize(
    ("name", "method", "models"),
    [
        ("COCO-Detection/EA-DKD-R18-R101", "EA-DKD", "R18-R101"),
        ("COCO-Detection/EA-DKD-R18-R101-fast", "EA-DKD", "R18-R101-fast"),
        ("COCO-Detection/EA-DKD-LS-R18-R101", "EA-DKD+LS", "R18-R101"),
        ("COCO-Detection/EA-REVIEWKD-Mask-R18-R101", "EA-REVIEWKD-Mask", "R18-R101"),
        ("COCO-Detection/EA-KD-RetinaNet-R18-R101", "EA-KD-RetinaNet", "R18-R101"),
        ("COCO-Detection/DKD-REVIEWKD-MV2-R50", "DKD+REVIEWKD", "MV2-R50"),
        ("COCO-Detection/Student-Cascade-R18", "Student-Cascade", "R18"),
        ("COCO-Detection/Teacher-Cascade-R101", "Teacher-Cascade", "R101"),
    ],
)
def test_detectors(name, method, models):
    path = ROOT / "configs" / f"{name}.yaml"
    cfg = DETECTORS.load(str(path), ["TEACHER.WEIGHTS", "teacher.pth"])
    assert DETECTORS.names(path, cfg) == (method, models)
    elsewhere = DETECTORS.names(Path("/mine/gears.yaml"), cfg)
    assert method.startswith(elsewhere[0].replace("Student", method[:7]))
    assert models.startswith(elsewhere[1])


KD = {"METHODS": ("KD",), "KD": {"STANDARDIZE": False}, "EA": {"ENABLED": False, "MODE": "full"}}
EA = {**KD, "EA": {"ENABLED": True, "MODE": "full"}}


@pytest.mark.parametrize(
    ("distill", "path", "method"),
    [
        (KD, "mine/KD.yaml", "KD"),
        (KD, "mine/kd-T2.yaml", "KD-T2"),
        (EA, "mine/EA-KD-T2.yaml", "EA-KD-T2"),
        (EA, "mine/KD.yaml", "EA-KD"),
        (EA, "mine/EA-KD-matched.yaml", "EA-KD"),  # it says another mode than its config
        (EA, "mine/EA-KD-normalized.yaml", "EA-KD"),
        ({**EA, "EA": {"ENABLED": True, "MODE": "matched"}}, "mine/a.yaml", "EA-KD-matched"),
        ({**KD, "KD": {"STANDARDIZE": True}}, "mine/KD-LS.yaml", "KD+LS"),
        ({"METHODS": ()}, "mine/Teacher.yaml", "Teacher"),
        ({"METHODS": ()}, "mine/resnet8.yaml", "Student"),
    ],
)
def test_the_config_says_the_method(distill, path, method):
    assert method_of(distill, Path(path)) == method


def node(*methods, ea=False, mode="full", **options):
    nodes = {method: {"WEIGHT": 1.0, **options} for method in methods}
    return {"METHODS": methods, "EA": {"ENABLED": ea, "MODE": mode}, **nodes}


@pytest.mark.parametrize(
    ("distill", "name"),
    [
        (node(), ""),
        (node(ea=True), ""),
        (node("KD"), "KD"),
        (node("DKD", "REVIEWKD", ea=True), "EA-DKD+REVIEWKD"),
        (node("MLD", ea=True, STANDARDIZE=True), "EA-MLD+LS"),
        (node("MLD", STANDARDIZE=False), "MLD"),
        (node("KD", ea=True, mode="matched"), "EA-KD-matched"),
    ],
)
def test_names_of_methods(distill, name):
    assert method_name(distill) == name


def test_a_method_without_its_weight():
    assert {*MODES} == {*EA_MODES} - {"full"}
    for mode in ("", *(f"-{mode}" for mode in MODES)):
        assert base_of(f"EA-DKD+LS{mode}") == "DKD+LS"
    assert [base_of(name) for name in ("KD", "Student-teacher")] == ["KD", "Student-teacher"]


def test_what_stands_behind_a_name():
    assert addition("EA-DKD-LS-long", "EA-DKD+LS") == "-long"
    assert addition("KDx", "KD") is None and addition("DKD", "KD") is None


def test_the_first_example_of_the_readme_has_its_difference(tmp_path, caplog):
    """configs/Digits, whose files lie in one folder: in every table and in the report."""
    files = [f"configs/Digits/{name}.yaml" for name in ("Teacher", "Student", "KD", "EA-KD")]
    runs = plan(CLASSIFIERS, files, [1, 2], str(tmp_path), [])
    top1 = {"Teacher": 96.0, "Student": 92.0, "KD": 93.0, "EA-KD": 94.5}
    for run in runs:
        run.folder.mkdir(parents=True)
        (run.folder / "sweep.json").write_text(json.dumps(run.record))
        result = {"top1": top1[run.folder.parts[-2]] + run.record["seed"], "teacher_top1": 96.0}
        (run.folder / "result.json").write_text(json.dumps(result))
    with caplog.at_level(logging.WARNING):
        write_tables(CLASSIFIERS, str(tmp_path), [("KD", "Student")])
    assert caplog.messages == []
    texts = [(tmp_path / f"table.{ending}").read_text() for ending in ("md", "tex")]
    assert "| resnet20_resnet8 | EA-KD minus KD   | +1.50 ± 0.00 |" in texts[0]
    assert r"resnet20\_resnet8 & EA-KD minus KD & +1.50 $\pm$ 0.00 & 2 \\" in texts[1]
    with open(tmp_path / "table.csv") as f:
        rows = {(row["models"], row["method"], row["minus"]): row for row in csv.DictReader(f)}
    assert float(rows["resnet20_resnet8", "EA-KD", "KD"]["mean"]) == 1.5
    assert float(rows["resnet20_resnet8", "KD", "Student"]["mean"]) == 1.0
    assert {("resnet20", "Teacher", ""), ("resnet8", "Student", "")} <= rows.keys()
    (sweep,) = read_sweeps(str(tmp_path), CLASSIFIERS)
    assert ["resnet20_resnet8", "EA-KD minus KD", "+1.50 ± 0.00", "2"] in sweep.tables[1][1]
