import json
from pathlib import Path

import pytest
import yaml
from detectron2.config import LazyConfig

from eakd_det.config.lazy import load_lazy_config
from eakd_det.config.merge import load_config
from eakd_det.report.runs import read_runs
from eakd_det.sweep.detectors import Detectors

COCO = Path(__file__).parent.parent.parent / "configs" / "COCO-Detection"
KIND = Detectors()
# Which config's run stands beside which AP of the papers; every other one stands alone.
FIGURES = {
    "Student-R18": 33.26, "KD-R18-R101": 33.97, "DKD-R18-R101": 35.05, "EA-DKD-R18-R101": 35.16,
    "EA-DKD-R18-R101-fast": 35.16, "REVIEWKD-R18-R101": 36.75, "DKD-REVIEWKD-R18-R101": 37.01,
    "Student-R50": 37.93, "KD-R50-R101": 38.35, "DKD-R50-R101": 39.25, "REVIEWKD-R50-R101": 40.36,
    "DKD-REVIEWKD-R50-R101": 40.65,
    "Student-MV2": 29.47, "KD-MV2-R50": 30.13, "DKD-MV2-R50": 32.34, "REVIEWKD-MV2-R50": 33.71,
    "DKD-REVIEWKD-MV2-R50": 34.35,
}  # fmt: skip


def as_read(cfg):
    """A config as the report finds it in config.yaml."""
    return yaml.safe_load(cfg.dump())


def test_published_figures_stand_beside_their_configs_alone():
    found = {}
    for path in COCO.glob("*.yaml"):
        config = as_read(load_config(str(path)))
        published = KIND.published(config)
        if published is not None and path.stem != "Base":
            found[path.stem] = published.figures["AP"]
    assert found == FIGURES


@pytest.mark.parametrize(
    "options",
    [
        ["SOLVER.MAX_ITER", "9000"],
        ["SOLVER.IMS_PER_BATCH", "16"],
        ["DATASETS.TEST", "('custom_val',)"],
        ["MODEL.MASK_ON", "True"],
        ["TEACHER.CONFIG_FILE", "parts/teacher/config.yaml"],
        ["DISTILL.EA.MODE", "matched"],
        ["DISTILL.DKD.STANDARDIZE", "True"],
    ],
)
def test_another_recipe_has_none(options):
    config = as_read(load_config(str(COCO / "EA-DKD-R18-R101.yaml"), options))
    assert KIND.published(config) is None


def test_figures_of_a_finished_run(write_run):
    cfg = load_config(str(COCO / "EA-DKD-Mask-R18-R101.yaml"))
    logged = [{"iteration": i, "bbox/AP": i / 2, "bbox/AP75": 1.0, "segm/AP": 3.0} for i in (9, 19)]
    folder = write_run("run", cfg, logged)
    (folder / "teacher").mkdir()
    (folder / "teacher" / "result.json").write_text(json.dumps({"bbox": {"AP": 42.9}}))
    (files,) = read_runs([str(folder)], [KIND])
    assert KIND.figures(files) == {"AP": 9.5, "AP75": 1.0, "mask AP": 3.0}
    assert KIND.curve(files) == [(9, 4.5), (19, 9.5)]
    assert KIND.teacher(files) == 42.9


def test_the_teacher_s_own_run_says_its_ap(write_run):
    student = load_config(str(COCO / "KD-R18-R101.yaml"))
    folder = write_run("teacher", load_config(str(COCO / "Student-R50.yaml")), result={"AP": 59.5})
    for number, (weights, ap) in enumerate(
        {"model_final.pth": 59.5, "model_best.pth": None, "gone/model_final.pth": None}.items()
    ):
        student.TEACHER.WEIGHTS = str(folder / weights)
        (files,) = read_runs([str(write_run(f"student{number}", student))], [KIND])
        assert KIND.teacher(files) == ap
    student.TEACHER.WEIGHTS, student.DATASETS.TEST = str(folder / "model_final.pth"), ()
    (files,) = read_runs([str(write_run("untested", student))], [KIND])
    assert KIND.teacher(files) is None
    done = write_run("done", student, result={"AP": 40.0, "teacher_AP": 41.0})
    (files,) = read_runs([str(done)], [KIND])
    assert KIND.teacher(files) == 41.0


def test_of_several_test_sets_the_first_counts(write_run):
    cfg = load_config(str(COCO / "Student-R18.yaml"))
    cfg.DATASETS.TEST = ("a_val", "b_val")
    folder = write_run("run", cfg, [{"iteration": 9, "a_val/bbox/AP": 1.0, "b_val/bbox/AP": 2.0}])
    (folder / "teacher").mkdir()
    results = {"a_val": {"bbox": {"AP": 3.0}}, "b_val": {"bbox": {"AP": 4.0}}}
    (folder / "teacher" / "result.json").write_text(json.dumps(results))
    (files,) = read_runs([str(folder)], [KIND])
    assert KIND.figures(files) == {"AP": 1.0}
    assert KIND.teacher(files) == 3.0
    assert KIND.dataset(files.config) == "a_val"


def test_a_python_config(write_run, tmp_path):
    cfg = load_lazy_config(str(COCO / "lazy" / "ea_dkd_r18_r101.py"), [])
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    text = (tmp_path / "config.yaml").read_text()
    (files,) = read_runs([str(write_run("lazy", text, [{"iteration": 9, "bbox/AP": 7.0}]))], [KIND])
    assert KIND.is_kind_of(files.config)
    assert KIND.method(files.config) == "EA-DKD"
    assert KIND.pair(files.config) == "faster_rcnn_R_101_FPN_3x → DistillRCNN"
    assert KIND.dataset(files.config) == "coco_2017_val"
    assert KIND.figures(files) == {"AP": 7.0}
    assert KIND.published(files.config) is None


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("EA-DKD-MV2-R50", "faster_rcnn_R_50_FPN_3x → MV2-FPN"),
        ("KD-RetinaNet-R18-R101", "retinanet_R_101_FPN_3x → RETINANET-R18-FPN"),
        ("Student-R50", "R50-FPN"),
    ],
)
def test_models(name, models):
    assert KIND.pair(as_read(load_config(str(COCO / f"{name}.yaml")))) == models
