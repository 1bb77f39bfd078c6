"""The published.yaml of each family, and their one reader."""

from pathlib import Path

import pytest
import yaml

from classification.runs import Classifiers
from eakd_det.config.merge import load_config
from eakd_det.sweep.detectors import Detectors
from eakd_det.sweep.published import find_published, read_published
from llm.runs import LanguageModels

ROOT = Path(__file__).parents[2]
KINDS = (LanguageModels, Classifiers, Detectors)


@pytest.fixture(autouse=True)
def root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_of_known_metrics_and_have_a_source(kind):
    for entry in read_published(kind.papers):
        keys = list(entry.figures)
        assert keys[0] == next(iter(kind.metrics))
        assert all(key.partition(" ")[0] in kind.metrics for key in keys)
        assert entry.source and (entry.std is None) == (entry.runs is None)


def test_every_figure_of_classifiers_is_there():
    by_source = {}
    for entry in read_published(Classifiers.papers):
        if entry.method:
            key = entry.recipe["DATASET.NAME"], entry.source[-8:]
            by_source.setdefault(key, []).append(entry)
    counts = {key: len(cells) for key, cells in by_source.items()}
    assert counts == {
        ("cifar100", "Table C4"): 49,
        ("cifar100", "Table A1"): 9,
        ("imagenet", "Table C5"): 8,
    }
    for (_, table), cells in by_source.items():
        deviations = sum(cell.std is not None for cell in cells)
        assert deviations == (3 if table == "Table C5" else len(cells))
        assert {cell.runs for cell in cells if cell.runs} == {3 if table == "Table C5" else 5}


@pytest.mark.parametrize(
    ("dataset", "method", "networks", "mean", "std"),
    [
        ("cifar100", "EA-KD", "resnet32x4 resnet8x4", 75.46, 0.15),
        ("cifar100", "EA-CTKD", "ResNet50 MobileNetV2", 69.38, 0.36),
        ("cifar100", "EA-DKD", "wrn_28_4 wrn_16_2", 76.74, 0.09),
        ("cifar100", "EA-MLD", "vgg13 vgg8", 75.28, 0.22),
        ("cifar100", "EA-MLD+LS", "resnet32x4 ShuffleNetV2", 79.13, 0.23),
        ("cifar100", "EA-REVIEWKD", "vgg13 MobileNetV2", 70.55, 0.09),
        ("cifar100", "EA-FCFD", "wrn_40_2 wrn_40_1", 75.30, 0.03),
        ("cifar100", "TTM", "resnet32x4 resnet8x4", 76.17, 0.28),
        ("cifar100", "WTTM", "wrn_40_2 wrn_40_1", 74.58, 0.26),
        ("cifar100", "EA-TTM", "resnet32x4 ShuffleNetV2", 76.65, 0.16),
        ("imagenet", "EA-DKD+LS", "ResNet34 ResNet18", 71.99, 0.01),
        ("imagenet", "PAD", "ResNet34 ResNet18", 71.71, None),
        ("imagenet", "", " ResNet34", 73.31, None),
        ("imagenet", "", " ResNet18", 69.75, None),
        ("cifar100", "", " ResNet50", 79.34, None),
        ("cifar100", "", " MobileNetV2", 64.60, None),
        ("cifar100", "", " wrn_16_2", 73.26, None),
    ],
)
def test_figures_of_classifiers(dataset, method, networks, mean, std):
    config = {"DATASET": {"NAME": dataset}}
    found = find_published(Classifiers.papers, config, tuple(networks.split(" ")), method)
    assert (found.figures, found.std) == ({"top1": mean}, std)
    other = {"DATASET": {"NAME": "digits"}}
    assert find_published(Classifiers.papers, other, tuple(networks.split(" ")), method) is None


def test_a_config_finds_its_figure():
    kind = Classifiers()
    cfg = kind.load("configs/ImageNet/EA-KD/ResNet34_ResNet18.yaml", [])
    assert kind.published(cfg).figures == {"top1": 71.79}
    detectors = Detectors()
    config = load_config("configs/COCO-Detection/EA-DKD-R18-R101.yaml")
    found = detectors.published(yaml.safe_load(config.dump()))
    assert found == detectors.published(config)
    assert found.figures == {"AP": 35.16, "AP50": 56.75, "AP75": 37.82} and found.teacher is None


def test_language_models_find_the_figures_of_their_sets():
    kind = LanguageModels()
    cfg = kind.load("configs/LLM/EA-KD.yaml", [])
    found = kind.published(cfg)
    assert found.figures["rougeL"] == 18.34 and found.figures["rougeL UnNI"] == 21.46
    cfg.TEST.SETS = ("Vicuna=x", "mine=y")
    assert kind.published(cfg).figures == {"rougeL Vicuna": 16.41}
    cfg.TEST.SETS = ("mine=y",)
    assert kind.published(cfg) is None
    assert kind.published(kind.load("configs/LLM/tiny/EA-KD.yaml", [])) is None


def test_other_maps_or_classes_than_the_method_s_have_no_figure():
    file = "configs/COCO-Detection/REVIEWKD-R18-R101.yaml"
    assert Detectors().published(load_config(file)).figures == {"AP": 36.75}
    for key, value in [
        ("LEVELS", "('p3',)"),
        ("FEATURES", "('backbone.bottom_up.res4',)"),
        ("CLASSES", "('person',)"),
    ]:
        assert Detectors().published(load_config(file, [f"DISTILL.{key}", value])) is None
    earlier = load_config(file)
    for key in ("LEVELS", "FEATURES", "CLASSES"):
        del earlier.DISTILL[key]
    assert Detectors().published(earlier).figures == {"AP": 36.75}
