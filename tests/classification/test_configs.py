"""The YAML files of the classifiers in configs/."""

import math
from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage

from classification.config import load_config
from classification.distilled import DistilledClassifier
from classification.distillers import DISTILLERS
from classification.models import build_classifier
from classification.sources import source_of
from classification.teacher import ClassifierTeacher
from classification.teacher_run import teacher_config
from eakd_det.distillers import method_settings

ROOT = Path(__file__).parent.parent.parent
SETS = ("CIFAR100", "FashionMNIST", "Glyphs100", "ImageNet")
FILES = sorted(file for name in SETS for file in (ROOT / "configs" / name).rglob("*.yaml"))
PARTS = ("methods", "pairs")
LEAVES = [f for f in FILES if f.stem != "Base" and f.parent.name not in PARTS]
DISTILLED = [f for f in LEAVES if f.parent.name not in ("Teacher", "Student")]
# Methods that depend on the two networks, not only on their number of classes.
STRUCTURAL = [f for f in DISTILLED if f.parent.name in ("EA-ReviewKD", "EA-FCFD", "PAD", "EA-MLD")]


def each(files, **options):
    return pytest.mark.parametrize(
        "path", files, ids=lambda path: f"{path.parts[-3]}/{path.parent.name}/{path.stem}"
    )


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


@each(FILES)
def test_every_config_loads(path):
    load_config(str(path))


@each(LEAVES)
def test_every_leaf_matches_its_path(path):
    cfg = load_config(str(path))
    method = path.parent.name
    folder = Path(*path.relative_to(ROOT / "configs").with_suffix("").parts)
    assert cfg.OUTPUT_DIR == f"output/{folder}"
    assert cfg.DISTILL.EA.ENABLED == method.startswith("EA-")
    mode = method.rpartition("-")[2]
    assert cfg.DISTILL.EA.MODE == (mode if mode in ("matched", "teacher") else "full")
    name = method.removeprefix("EA-").removesuffix("+LS").split("-")[0].upper()
    if method in ("Teacher", "Student"):
        assert not cfg.DISTILL.METHODS and cfg.MODEL.NAME.endswith(path.stem)
        return
    assert cfg.DISTILL.METHODS == (name,)
    if "STANDARDIZE" in cfg.DISTILL[name]:
        assert cfg.DISTILL[name].STANDARDIZE == method.endswith("+LS")
    own = teacher_config(cfg)
    teacher = cfg.TEACHER.NAME or own.MODEL.NAME
    names = [x.removeprefix("imagenet_").lower() for x in (teacher, cfg.MODEL.NAME)]
    assert "_".join(names) == path.stem.lower()


@each(DISTILLED)
def test_schedules(path):
    """The schedule is the paper's, or the method's own."""
    cfg = load_config(str(path))
    solver, method = cfg.SOLVER, path.parent.name
    if path.parts[-3] == "CIFAR100":
        is_mld = "MLD" in method
        is_light = cfg.MODEL.NAME in ("MobileNetV2", "ShuffleNetV2")
        assert solver.EPOCHS == (480 if is_mld else 240)
        assert (solver.BATCH_SIZE, solver.WEIGHT_DECAY) == (64, 5e-4)
        if not is_mld:
            assert math.isclose(solver.BASE_LR, 0.01 if is_light else 0.05)
        assert solver.STEPS == (150, 180, 210)
    if path.parts[-3] == "ImageNet":
        assert solver.EPOCHS == (130 if method == "EA-DKD+LS" else 100)
        assert (solver.BATCH_SIZE, solver.BASE_LR) == (512, 0.2)
        assert solver.STEPS == (30, 60, 90)
        assert cfg.DISTILL.EA.TEMPERATURE == 2.0


def check_step(path):
    """Train a step with random weights."""
    cfg = load_config(str(path))
    source = source_of(cfg.DATASET)
    own = teacher_config(cfg)
    torch.manual_seed(0)
    student, teacher = (
        build_classifier(name, source.num_classes)
        for name in (cfg.MODEL.NAME, cfg.TEACHER.NAME or own.MODEL.NAME)
    )
    distilled = DistilledClassifier(
        student,
        ClassifierTeacher(teacher),
        **method_settings(cfg.DISTILL, DISTILLERS),
        ce_weight=cfg.DISTILL.CE_WEIGHT,
        image_size=source.image_size,
    )
    views = [torch.randn(2, 3, *[source.image_size] * 2) for _ in range(distilled.num_views)]
    with EventStorage(0):
        losses = distilled.train()({"views": views, "labels": torch.tensor([1, 5]), "scale": 1.0})
    total = sum(losses.values())
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(p.grad).all() for p in student.parameters())


@each(STRUCTURAL)
def test_structural_configs_train_a_step(path):
    check_step(path)


@pytest.mark.slow
@each(sorted(set(DISTILLED) - set(STRUCTURAL)))
def test_every_config_trains_a_step(path):
    check_step(path)
