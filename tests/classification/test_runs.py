from pathlib import Path

import pytest
import yaml

from classification.config import load_config
from classification.runs import Classifiers
from eakd_det.analysis.runs import Run
from eakd_det.sweep.run_files import RunFiles

ROOT = Path(__file__).parent.parent.parent
CIFAR = ROOT / "configs" / "CIFAR100"
KIND = Classifiers()


def files_of(path, metrics=(), result=()):
    text = load_config(str(path)).dump()
    return RunFiles(
        Run("run", "run", "run"),
        text,
        yaml.safe_load(text),
        dict(metrics),
        dict(result),
        record={},
        group="run",
    )


LEAVES = sorted(p for p in CIFAR.glob("*/*.yaml") if p.parent.name not in ("methods", "pairs"))


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_methods_and_models_are_those_of_the_configs_path(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = files_of(path).config
    if path.parent.name in ("Teacher", "Student"):
        assert (KIND.method(config), KIND.pair(config)) == ("", path.stem)
    else:
        teacher, _, student = KIND.pair(config).partition(" → ")
        assert f"{teacher}_{student}" == path.stem
        assert KIND.method(config).lower() == path.parent.name.lower()


@pytest.mark.parametrize(
    ("name", "figures", "std", "teacher", "table"),
    [
        ("EA-KD/vgg13_vgg8", {"top1": 74.08}, 0.10, 74.64, "Table C4"),
        ("WTTM/wrn_40_2_wrn_40_1", {"top1": 74.58}, 0.26, 75.61, "Table A1"),
        ("Student/vgg8", {"top1": 70.36}, None, None, "Table C4"),
        ("Teacher/ResNet50", {"top1": 79.34}, None, None, "Table C4"),
    ],
)
def test_published_figures(name, figures, std, teacher, table, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = KIND.published(files_of(CIFAR / f"{name}.yaml").config)
    assert (found.figures, found.std, found.teacher) == (figures, std, teacher)
    assert found.source.endswith(table)


@pytest.mark.parametrize("name", ["CIFAR100/KD/vgg13_vgg8", "Digits/EA-KD", "Digits/Student"])
def test_what_no_table_has_stands_alone(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert KIND.published(files_of(ROOT / "configs" / f"{name}.yaml").config) is None


def test_published_figures_of_imagenet_s_models(monkeypatch):
    """Papers call them otherwise than MODEL.NAME does."""
    monkeypatch.chdir(ROOT)
    found = KIND.published(files_of(ROOT / "configs/ImageNet/EA-KD/ResNet34_ResNet18.yaml").config)
    assert found.figures == {"top1": 71.79} and found.teacher == 73.31


def test_figures():
    metrics = {"top1": [(9, 60.0), (19, 55.0)], "top5": [(9, 90.0), (19, 91.0)]}
    files = files_of(ROOT / "configs/Digits/KD.yaml", metrics, {"teacher_top1": 96.0})
    assert KIND.figures(files) == {"top-1": 55.0, "top-5": 91.0, "best top-1": 60.0}
    assert KIND.teacher(files) == 96.0


def test_a_teachers_config_that_is_elsewhere(tmp_path, monkeypatch):
    config = files_of(CIFAR / "EA-KD/vgg13_vgg8.yaml").config
    monkeypatch.chdir(tmp_path)
    assert KIND.pair(config) == "vgg13 → vgg8"
