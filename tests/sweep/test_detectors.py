"""Sweeps of detectors: real trainings of a few steps, by tools/sweep.py."""

import json
from pathlib import Path

import pytest
from detectron2.data import MetadataCatalog

from classification.runs import Classifiers
from eakd_det.report.sweeps import read_sweeps
from eakd_det.sweep.detectors import Detectors
from eakd_det.sweep.find_kind import kind_of_configs, kind_of_folder
from eakd_det.sweep.grid import plan
from eakd_det.sweep.origin import configs_of
from eakd_det.sweep.tables import write_tables
from eakd_det.utils.errors import UserError

ROOT = Path(__file__).parents[2]
KIND = Detectors()
KINDS = (Classifiers(), KIND)


@pytest.mark.parametrize(
    ("name", "method", "models"),
    [
        ("COCO-Detection/EA-DKD-R18-R101", "EA-DKD", "R18-R101"),
        ("COCO-Detection/EA-DKD-R18-R101-fast", "EA-DKD", "R18-R101-fast"),
        ("COCO-Detection/EA-REVIEWKD-Mask-R18-R101", "EA-REVIEWKD-Mask", "R18-R101"),
        ("COCO-Detection/DKD-REVIEWKD-MV2-R50", "DKD-REVIEWKD", "MV2-R50"),
        ("Fashion-Detection/EA-DKD-matched-R18-R101", "EA-DKD-matched", "R18-R101"),
        ("Fashion-Detection/Student-R18", "Student", "R18"),
        ("COCO-Detection/EA-DKD-regnetx_004-R101", "EA-DKD", "regnetx_004-R101"),
        ("COCO-Detection/Student-regnetx_004", "Student", "regnetx_004"),
        ("mine/DKD-lr_2", "DKD-lr_2", "mine"),
        ("mine/gears", "gears", "mine"),
    ],
)
def test_paths_name_method_and_models(name, method, models):
    assert KIND.split(Path(f"/configs/{name}.yaml")) == (method, models)


@pytest.mark.parametrize(
    ("teacher", "models"),
    [
        ("torchvision://retinanet_resnet50_fpn_v2", "R18-retinanet_resnet50_fpn_v2"),
        ("projects/mask_rcnn_vitdet_b_100ep.py", "R18-mask_rcnn_vitdet_b_100ep"),
    ],
)
def test_a_teacher_without_a_yaml_config(distill_cfg, tmp_path, monkeypatch, teacher, models):
    """It is named by its config, and is not trained; the text of a Python config is its origin."""
    monkeypatch.chdir(tmp_path)
    distill_cfg.TEACHER.CONFIG_FILE = teacher
    Path("projects").mkdir()
    Path("projects/mask_rcnn_vitdet_b_100ep.py").write_text("depth = 2")
    Path("student.yaml").write_text(distill_cfg.dump())
    assert KIND.models(distill_cfg) == models
    assert KIND.missing(distill_cfg) == {}
    before = configs_of(["student.yaml"])
    Path("projects/mask_rcnn_vitdet_b_100ep.py").write_text("depth = 3")
    assert (configs_of(["student.yaml"]) == before) == teacher.startswith("torchvision")


@pytest.mark.parametrize(
    ("words", "methods"),
    [
        (["DISTILL.EA.BOUND", "2"], ["Student", "DKD", "EA-DKD EA.BOUND=2"]),
        (
            ["TEACHER.WEIGHTS", "a.pth", "x/b.pth"],
            [
                *("Student", "DKD TEACHER.WEIGHTS=a", "DKD TEACHER.WEIGHTS=b"),
                *("EA-DKD TEACHER.WEIGHTS=a", "EA-DKD TEACHER.WEIGHTS=b"),
            ],
        ),
        (
            ["SOLVER.MAX_ITER", "9"],
            [f"{method} SOLVER.MAX_ITER=9" for method in ("Student", "DKD", "EA-DKD")],
        ),
    ],
)
def test_a_varied_key(monkeypatch, words, methods):
    monkeypatch.chdir(ROOT)
    names = ("Student-R18", "DKD-R18-R101", "EA-DKD-R18-R101")
    files = [f"configs/Fashion-Detection/{name}.yaml" for name in names]
    runs = plan(KIND, files, [1], "out", [], vary=words)
    assert [run.record["method"] for run in runs] == methods
    assert {run.record["models"] for run in runs} == {"R18", "R18-R101"}


@pytest.fixture
def configs(distill_cfg, teacher_cfg, scenes, tmp_path):
    """Config files of two distilled students, whose teacher is yet to be trained."""
    teacher, folder = teacher_cfg.clone(), tmp_path / "teacher"
    teacher.OUTPUT_DIR = str(folder)
    teacher.DATASETS.TRAIN, teacher.DATASETS.TEST = ((name,) for name in scenes)
    short(teacher)
    (tmp_path / "Teacher.yaml").write_text(teacher.dump())
    cfg = distill_cfg
    cfg.TEACHER.CONFIG_FILE = str(tmp_path / "Teacher.yaml")
    cfg.TEACHER.WEIGHTS = str(folder / "model_final.pth")
    short(cfg)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ((name,) for name in scenes)
    files = [tmp_path / f"{name}-R18-R50.yaml" for name in ("EA-DKD", "DKD")]
    files[0].write_text(cfg.dump())
    cfg.DISTILL.EA.ENABLED = False
    files[1].write_text(cfg.dump())
    return [str(file) for file in files]


def short(cfg):
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR = 2, 2, 0.001
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 10
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0  # else nothing is found, and AP is nan
    cfg.INPUT.MIN_SIZE_TRAIN = (96,)
    cfg.INPUT.MIN_SIZE_TEST = 96
    cfg.DATALOADER.NUM_WORKERS = 0


@pytest.fixture
def sweep(scenes, call_tool, tmp_path):
    """Calls tools/sweep.py on the scenes; its exit code and all that it prints."""
    files = [MetadataCatalog.get(name).json_file for name in scenes]
    data = ["--train-json", files[0], "--train-images", str(Path(files[0]).parents[1] / "train")]
    data += ["--val-json", files[1], "--val-images", str(Path(files[1]).parents[1] / "val")]

    def call(*arguments):
        out = ["--output-dir", str(tmp_path / "out"), *data]
        code, out, err = call_tool("sweep.py", *arguments, *out)
        return code, out + err

    return call


def test_a_teacher_has_the_device_and_precision_of_its_students(configs, tmp_path):
    amp = ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", "bfloat16"]
    device = ["MODEL.DEVICE", "cuda:1"]
    for mixed in ([], amp):
        (run,) = plan(Detectors(), configs[:1], [1], str(tmp_path), [*device, *mixed])
        file = run.cfg.TEACHER.CONFIG_FILE
        arguments = run.kind.source_arguments(file, run.cfg, run.arguments)
        folder = ["OUTPUT_DIR", str(tmp_path / "teacher")]
        assert arguments == ["--config-file", file, "--resume", *folder, *device, *mixed]


def test_the_teacher_is_trained_and_then_the_grid(configs, sweep, tmp_path):
    arguments = ["--configs", *configs, "--seeds", "1", "--jobs", "2"]
    code, text = sweep(*arguments)
    assert code == 0, text
    assert text.index("Teacher.yaml: done") < text.index("[1/2] EA-DKD/R18-R50 seed 1: started")
    folders = [tmp_path / "out" / method / "R18-R50" / "seed1" for method in ("DKD", "EA-DKD")]
    results = [json.loads((folder / "result.json").read_text()) for folder in folders]
    teacher = json.loads((tmp_path / "teacher" / "result.json").read_text())
    for folder, result in zip(folders, results, strict=True):
        last = json.loads((folder / "metrics.json").read_text().splitlines()[-1])
        assert [result[key] for key in KIND.metrics] == [last[f"bbox/{x}"] for x in KIND.metrics]
        assert result["teacher_AP"] == teacher["AP"]
    summary = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [entry["mean"] for entry in summary["summary"]] == [x["AP"] for x in results]
    (paired,) = summary["differences"]
    assert paired["AP75_mean"] == pytest.approx(results[1]["AP75"] - results[0]["AP75"])
    cells = f"| {results[0]['AP']:.2f} ± — |"
    assert cells in " ".join(text.split()) and "AP50" in text and "Difference in AP75" in text
    code, again = sweep(*arguments)
    assert code == 0 and again.count("finished before") == 2 and "started" not in again
    out = str(tmp_path / "out")
    assert kind_of_folder(out, KINDS) is KIND
    assert write_tables(KIND, out) == (tmp_path / "out" / "table.md").read_text()
    (of_report,) = read_sweeps(out, KIND)
    assert "AP50" in of_report.tables[0][0] and len(of_report.tables[0][1]) == 2


def test_mistakes_are_sentences(configs, sweep, tmp_path):
    classifier = str(ROOT / "configs" / "Digits" / "KD.yaml")
    code, text = sweep("--configs", configs[0], classifier, "--seeds", "1")
    assert code == 1 and "Traceback" not in text
    assert text.startswith("error: The runs of a sweep must be of one kind, but there are:\n")
    for file, message in [
        (str(tmp_path / "none.yaml"), "there is no file"),
        (str(ROOT / "setup.py"), "setup.py is not a YAML config"),
    ]:
        with pytest.raises(UserError, match=f"--configs: .*{message}"):
            kind_of_configs([file], KINDS)
    assert kind_of_configs([classifier], KINDS) is KINDS[0]
    with pytest.raises(UserError, match="--val-json: not for classifiers"):
        plan(KINDS[0], [classifier], [1], "out", [], {"--val-json": "x"})
    with pytest.raises(UserError, match="has no DATASETS.TEST"):
        plan(KIND, configs, [1], "out", ["DATASETS.TEST", "()"])
    with pytest.raises(UserError, match="holds no run"):
        kind_of_folder(str(tmp_path), KINDS)
